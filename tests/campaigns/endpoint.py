"""A server that fails in every way, asked by many at a time: no part of `make test`.

    python tests/campaigns/endpoint.py [--requests 2000] [--failing 0.4] [--seed 0]

The server of the tests answers a share of the requests with 429, 500 or 503, with what is no chat completion, or hangs up. Eight
threads ask it, and go on where a request fails for good, as a user would who starts again. In the end each reply has to be the one
that a faultless server gives, and none may have been asked for again once it was answered. Writes endpoint.csv and endpoint.md
beside this file.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import write_csv, write_text
from reflect_rl.core.runtime import hardware
from reflect_rl.lm.endpoint import Endpoint

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "lm"))
from test_endpoint import server  # noqa: E402

FAULTS = (429, 500, 503, "hang up", '{"choices": []}', '{"choices": null}', "garbage", "[]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--failing", type=float, default=0.4, help="share of requests that the server fails")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    script = [rng.choice(FAULTS) if rng.random() < given.failing else 200 for _ in range(20 * given.requests)]
    texts = [
        f"question {i % (given.requests * 3 // 4)}" for i in range(given.requests)
    ]  # a quarter asks what was asked
    rng.shuffle(texts)
    gave_up: Counter[bool] = Counter()  # by whether the error had several lines

    with (
        tempfile.TemporaryDirectory() as home,
        server(*script, text=lambda body: f"on {body['messages'][0]['content']}") as (url, asked),
    ):
        os.environ["REFLECT_RL_HOME"] = home
        endpoint, began = Endpoint(url, "m", tries=3), time.monotonic()

        def ask(text: str) -> str:
            while True:
                try:
                    return endpoint.reply([{"role": "user", "content": text}], 8)
                except ReflectRLError as error:
                    gave_up["\n" in str(error)] += 1

        with ThreadPoolExecutor(8) as pool:
            replies = [*tqdm(pool.map(ask, texts), total=len(texts), unit="reply")]
        seconds, faults = time.monotonic() - began, Counter(map(str, script[: len(asked)]))
    assert replies == [f"on {text}" for text in texts], "a reply is not that of a faultless server"
    assert faults["200"] == len(set(texts)), "a question was asked again after it had been answered"
    assert not gave_up[True], "an error of several lines"
    table = pd.DataFrame({"answer": [*faults], "times": [*faults.values()]}).sort_values("times", ascending=False)
    write_csv(HERE / "endpoint.csv", table)
    about = (
        f"{given.requests} replies to {len(set(texts))} questions, all as of a faultless server, by {len(asked)} requests; "
        f"none asked again once it was answered; {gave_up[False]} times three tries were not enough, with one clear line; "
        f"{seconds:.0f} s; {hardware()}"
    )
    write_text(HERE / "endpoint.md", f"{table.to_markdown(index=False)}\n\n{about}\n")


if __name__ == "__main__":
    main()
