"""train|eval VARIANT... : stages of the library, one after the other."""
import sys, time
from reflect_rl.envs import settings
from reflect_rl.train import rl
from reflect_rl.evaluate.panels import evaluate
what, *variants = sys.argv[1:]
for v in variants:
    run = settings.load("repositories", "autoexplore_real", v, 0)
    t = time.time()
    print(what, v, time.strftime("%H:%M:%S"), flush=True)
    (rl.train if what == "train" else evaluate)(run)
    print(what, v, "done in", round(time.time() - t), "s", flush=True)
