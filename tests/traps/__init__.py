"""Cases where stock Pyro (1.9) is silently wrong or fails, and what ppvae does there: both sides of each trap.

The known answer is the evidence of an oracle or a closed form. Where a later Pyro has repaired a trap, the stock half
of its test fails with a message that says so, and can be deleted. Traps with tests elsewhere:

- transforms that cannot score a value that they did not draw: tests/guides/test_flows.py (``can_score``), and the
  refusals of every estimator in tests/test_catalogue.py;
- log-determinants of all flows against autodiff, in float64: tests/guides/test_flows.py;
- the sign of the weights that ArviZ's ``psislw`` takes, in 0.x and 1.x:
  tests/ppvae/evaluation/likelihood/test_pareto.py;
- annealed weights without bias however few the temperatures: tests/ppvae/evaluation/likelihood/test_annealing.py (the
  frozen step sizes are tested here; stock Pyro has no annealed importance sampling);
- two pairs in one stock loop, and a model and a guide with parameters of one name: tests/ppvae/engine/test_contract.py;
- a training step without a read from the device, for every pair and objective: tests/test_meta_device.py.
"""
