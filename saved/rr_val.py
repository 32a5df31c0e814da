import numpy as np, torch
from reflect_rl.envs import settings, get
from reflect_rl.lm import models
from reflect_rl.core.identity import stage_dir
from reflect_rl.train import warmup, data
from reflect_rl.lm.prompts import format_of
run = settings.load("repositories", "autoexplore_real", "reflect_rl", 0)
players = warmup.players_with(run, stage_dir(run,"data")/"tokenizer.json")
models.load_weights(players.policy.model, "policy", stage_dir(run,"policy")/"weights.safetensors"); players.policy.model.eval()
spec=get("autoexplore_real"); env=spec.make(); rng=np.random.default_rng(5)
sits=[now for task in warmup.validation_tasks(run)[:14] for now,_ in data.trajectory(spec, env, task, 0.1, rng)][:90]
pol=players.policy
import inspect
prompts=[]; 
for s in sits:
    numbers=pol.labels.of(s.actions)
    prompts.append((format_of(pol.labels).policy(s.observation,s.last_action,s.actions,spec.teacher(s),pol.labels.texts(numbers)),numbers))
models.activate(pol.model,"policy")
good=0; p=[]
with torch.no_grad():
    for s,(pr,num) in zip(sits,prompts):
        lp=pol.log_probs([pr],[num])[0].float()
        k=s.actions.index(s.expert_action) if s.expert_action in s.actions else -1
        good+=int(lp.argmax())==k; p.append(float(lp[k].exp()))
print(len(sits), good/len(sits), np.mean(p))
