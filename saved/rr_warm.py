"""reflector | policy | policy_no_reflection: one player's warm-up, with checkpoints every 25 steps; most layers are computed
again in the backward pass (the same numbers in less memory)."""
import sys
from reflect_rl.envs import settings
from reflect_rl.train import sft, warmup
sft.CHECKPOINT_EVERY = 25
what = sys.argv[1]
variant = "sft_only" if what == "policy_no_reflection" else "reflect_rl"
run = settings.load("repositories", "autoexplore_real", variant, 0)
players = warmup.new_players(run)
model = players.policy.model
model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
layers = [m for m in model.modules() if type(m).__name__ == "LlamaDecoderLayer"]
assert len(layers) == 30 and all(l.gradient_checkpointing for l in layers), len(layers)
for l in layers[20:]: l.gradient_checkpointing = False
if what == "reflector":
    def measure():
        model.gradient_checkpointing_disable()
        return warmup.follow_success(run, players.reflector)
    warmup._ensure(run, "reflector", players.reflector, "reflector", measure)
else:
    warmup._ensure(run, "policy", players.policy, what)
print("done", what)
