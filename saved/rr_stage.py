"""train|eval VARIANT...: stages of the library, one after the other; in updates two thirds of the layers are computed again in
the backward pass (the same numbers in less memory)."""
import sys, time
from reflect_rl.envs import settings
from reflect_rl.train import rl
from reflect_rl.train.learner import Learner
from reflect_rl.evaluate.panels import evaluate
update = Learner.update
def lean(self, *args, **kwargs):
    model = self.policy.model
    if not getattr(self, "lean", False):
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.layers = [m for m in model.modules() if type(m).__name__ == "LlamaDecoderLayer"]
        assert len(self.layers) == 30
        for l in self.layers[20:]: l.gradient_checkpointing = False
        self.lean = True
    for l in self.layers: l.training = True
    try: return update(self, *args, **kwargs)
    finally:
        for l in self.layers: l.training = False
Learner.update = lean
what, *variants = sys.argv[1:]
for v in variants:
    run = settings.load("repositories", "autoexplore_real", v, 0)
    t = time.time()
    print(what, v, time.strftime("%H:%M:%S"), flush=True)
    (rl.train if what == "train" else evaluate)(run)
    print(what, v, "done in", round(time.time() - t), "s", flush=True)
