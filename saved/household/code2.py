import json,sys
from reflect_rl.envs import settings
from reflect_rl.core.identity import stage_code, STAGES
for prof in ("study","laptop"):
  for env in ("taxi","alfworld","autoexplore"):
    c=settings.load(prof,env,"reflect_rl",0,"","paper")
    m=json.load(open(f'/work/main/results/{prof}/manifest.json'))['environments'][env]['code']
    mine={s:stage_code(c,s) for s in STAGES}
    print(prof,env,{s:(mine[s]==m[s]) for s in m})
