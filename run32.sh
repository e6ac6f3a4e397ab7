echo 10 > /proc/self/autogroup
python /tmp/disc/trial32.py --steps 5000 --width 16 --z 6 --gamma 10 --start 200 --end 1 --ramp 4000 --scale 0 --lr 1e-3 --out /tmp/disc/anneal32 > /tmp/disc/anneal32.log 2>&1
python /tmp/disc/trial32.py --steps 5000 --width 16 --z 6 --gamma 10 --start 1 --end 1 --ramp 4000 --scale 0 --lr 1e-3 --out /tmp/disc/const32 > /tmp/disc/const32.log 2>&1
