"""Where stock Pyro (1.9) is silently wrong or cannot go, and what here takes its place: both sides of each trap.

The known answer is an oracle's evidence or a closed form. Where a later Pyro has repaired a trap, the stock half of
its test says so and can go. Traps whose tests stand with what they are about:

- which transforms can score a value that they did not draw: tests/guides/test_flows.py (``can_score``), and every
  estimator's refusal in tests/test_catalogue.py;
- log-determinants of all flows against autodiff, in float64: tests/guides/test_flows.py;
- the sign of the weights that ArviZ's ``psislw`` takes, in 0.x and 1.x: tests/ppvae/evaluation/test_pareto.py;
- annealed weights without bias however few the temperatures: tests/ppvae/evaluation/test_annealing.py (that the step
  sizes are frozen stands here; stock Pyro has no annealed importance sampling);
- two pairs side by side in stock loops, and model and guide that name a parameter alike: tests/ppvae/test_contract.py.
"""
