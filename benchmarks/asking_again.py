"""A second prompt for the same volume: what it takes once the image encoder's features are kept, and what without.

Each round sends a volume that the server has not seen, first with one prompt, then with another.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

import served
from medimageparse_serving.step_environment import CACHE_BYTES
from processes import OtherLoad, PeakMemory
from recording import Row, conditions, find_graphs, median, parser_of, record, results_of

PROMPTS = ("liver", "spleen")


def rows(options) -> Iterator[Row]:
    setting = served.Setting(find_graphs("medimageparse_3d", options))
    here = conditions() | {"variant": options.variant, "slices": options.slices, "rounds": options.rounds}
    for cache in ("as served", "off"):
        os.environ[CACHE_BYTES] = "" if cache == "as served" else "0"
        with served.serving(options.work, setting) as server, PeakMemory(server.process.pid) as memory:
            others, seconds = OtherLoad(server.process.pid), {prompt: [] for prompt in PROMPTS}
            for seed in range(options.rounds + 1):  # the first warms up
                request = served.make_request(setting.model, options.slices, 1, seed=seed)
                for prompt in PROMPTS:
                    (of_one,) = served.measure(server, replace(request, prompts=[prompt]), 1)
                    seconds[prompt].append(of_one.wall_s)
            share = others.share()
        first_s, second_s = (median(seconds[prompt][1:]) for prompt in PROMPTS)
        row = {"cache": cache, "others_share": share, "first_s": first_s, "second_s": second_s}
        yield here | row | {"second_over_first": second_s / first_s, "peak_pss_gb": memory.peak_pss / 1e9}


def summary(row: Row) -> str:
    line = f"cache {row['cache']}: first prompt {row['first_s']:.2f} s, second {row['second_s']:.2f} s "
    return f"{line}({row['second_over_first']:.2f}), PSS {row['peak_pss_gb']:.2f} GB, others {row['others_share']:.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--slices", type=int, default=16, metavar="N")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="after one more")
    options = parser.parse_args(arguments)
    record(results_of(options, "asking_again"), rows(options), summary)


if __name__ == "__main__":
    main()
