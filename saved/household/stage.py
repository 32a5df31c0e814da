"""stages of reflect_rl_no_negatives by the library: argv = seed:what ..."""
import sys, time
from reflect_rl import envs
from reflect_rl.train import data, warmup, rl
from reflect_rl.evaluate.panels import evaluate
from reflect_rl.evaluate.probes import reflector_probes
for arg in sys.argv[1:]:
    seed, what = arg.split(":")
    s = envs.load("study", "alfworld", "reflect_rl_no_negatives", int(seed), "", "paper")
    t=time.time()
    def say(x):
        print(time.strftime("%T"), seed, x, round(time.time()-t), flush=True)
    data.make(s); say("data")
    warmup.warm_up(s); say("warm-up")
    if what == "all":
        rl.train(s); say("rl")
        evaluate(s); say("evaluation")
        reflector_probes(s); say("probes")
