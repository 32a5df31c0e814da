import sys, numpy as np, torch
from dataclasses import replace
from reflect_rl.envs import settings, get
from reflect_rl.lm import models
from reflect_rl.core.identity import stage_dir
from reflect_rl.train import warmup, data
from reflect_rl.lm.prompts import ADVICE_LAST, PLAIN
run = settings.load("repositories", "autoexplore_real", "reflect_rl", 0)
players = warmup.players_with(run, stage_dir(run,"data")/"tokenizer.json")
spec=get("autoexplore_real"); env=spec.make(); rng=np.random.default_rng(5)
sits=[now for task in warmup.validation_tasks(run)[:14] for now,_ in data.trajectory(spec, env, task, 0.1, rng)][:90]
pol=players.policy; models.activate(pol.model,"policy")
for name,fmt in (("plain",PLAIN),("advice last",ADVICE_LAST)):
    good=0;p=[]
    with torch.no_grad():
        for s in sits:
            num=pol.labels.of(s.actions)
            lp=pol.log_probs([fmt.policy(s.observation,s.last_action,s.actions,spec.teacher(s),pol.labels.texts(num))],[num])[0]
            k=s.actions.index(s.expert_action); good+=int(lp.argmax())==k; p.append(float(lp[k].exp()))
    print(name,"untrained",good/len(sits),np.mean(p), flush=True)
