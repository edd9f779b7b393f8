"""Fuzzes the parsers of untrusted files: builds tests/fuzz with clang's libFuzzer and runs it.

    python tools/fuzz.py [TARGET...] [--seconds N] [--jobs N]

Without names, every target. Prints a line for each, keeps a log of each in --logs, and exits 1
where there is a finding; the input is then in build-fuzz/findings/. What a run learns stays in
build-fuzz/corpus/ for the next one; --keep adds the smallest inputs that reach what
tests/fuzz/corpus/ does not to that folder.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from build_backend import find_tool

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build-fuzz"
TARGETS = ROOT / "tests" / "fuzz"
# The seeds of one target may take this much of the repository.
MOST_CORPUS_BYTES = 48 << 10
# The sanitizers and torch take some 250 MB before the first input, and what was freed is kept for a
# while to see uses of it. One allocation is bounded more tightly, and the targets bound the sum.
LIMITS = ["-timeout=5", "-rss_limit_mb=1536", "-malloc_limit_mb=96"]

PROBE = """
#include <cstdint>
#include <string>
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return std::string(reinterpret_cast<const char*>(data), size) == "0" ? -1 : 0;
}
"""


def links_fuzzers(compiler: str) -> bool:
    """Whether a compiler of that name is there and has libFuzzer and the sanitizers."""
    if shutil.which(compiler) is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.cpp"
        source.write_text(PROBE)
        flags = ["-std=c++20", "-fsanitize=fuzzer,address,undefined"]
        command = [compiler, *flags, str(source), "-o", str(source.with_suffix(""))]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def find_clang() -> str | None:
    names = ["clang++", *(f"clang++-{version}" for version in range(30, 13, -1))]
    return next((name for name in names if links_fuzzers(name)), None)


def install_clang() -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    print("fuzz: no clang with libFuzzer on this system: installing Debian's", flush=True)
    apt = ["apt-get", "--yes", "--quiet"]
    subprocess.run([*apt, "update"], stdout=subprocess.DEVNULL, check=True)
    packages = ["clang", "libclang-rt-dev"]
    install = [*apt, "install", "--no-install-recommends", *packages]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(install, stdout=subprocess.DEVNULL, env=environment, check=True)


def build(clang: str) -> None:
    """Configures and compiles; cmake's own output only where it fails."""
    cmake = find_tool("cmake") or "cmake"
    configure = [cmake, "-S", str(ROOT), "-B", str(BUILD), "-G", "Ninja"]
    options = ["-DMISTRAL_EXT_FUZZ=ON", f"-DCMAKE_CXX_COMPILER={clang}"]
    options += [f"-DCMAKE_C_COMPILER={clang.replace('++', '')}"]
    options += [f"-DPython_EXECUTABLE={sys.executable}"]
    if ninja := find_tool("ninja"):
        options.append(f"-DCMAKE_MAKE_PROGRAM={ninja}")
    for command in ([*configure, *options], [cmake, "--build", str(BUILD)]):
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode != 0:
            sys.exit(f"{done.stdout}\nfuzz: the targets could not be built")


def all_targets() -> list[str]:
    return sorted(path.name.removesuffix("_fuzz.cpp") for path in TARGETS.glob("*_fuzz.cpp"))


def program(target: str) -> str:
    return str(BUILD / "tests" / "fuzz" / f"fuzz_{target}")


def dictionary(target: str) -> list[str]:
    """The option for the target's dictionary: safetensors.dict is also safetensors_file's."""
    found = [
        path
        for path in (TARGETS / "dictionaries").glob("*.dict")
        if target == path.stem or target.startswith(path.stem + "_")
    ]
    return [f"-dict={max(found, key=lambda path: len(path.stem))}"] if found else []


@dataclass
class Result:
    target: str
    finding: bool
    executions: int
    seconds: float
    coverage: int
    corpus: str
    log: Path

    def row(self) -> str:
        speed = self.executions / max(self.seconds, 1)
        finding = f"FINDING, see {self.log}" if self.finding else "none"
        return (
            f"{self.target:<20} {self.executions:>11} {self.seconds:>7.0f} {speed:>8.0f} "
            f"{self.coverage:>6} {self.corpus:>12}  {finding}"
        )


HEADING = (
    f"{'target':<20} {'executions':>11} {'seconds':>7} {'per s':>8} {'edges':>6} "
    f"{'corpus':>12}  findings"
)


def fuzz(target: str, seconds: int, logs: Path) -> Result:
    grown = BUILD / "corpus" / target
    findings = BUILD / "findings"
    for folder in (grown, findings):
        folder.mkdir(parents=True, exist_ok=True)
    log = logs / f"{target}.log"
    command = [program(target), str(grown), str(TARGETS / "corpus" / target), *LIMITS]
    command += [*dictionary(target), "-print_final_stats=1"]
    command += [f"-artifact_prefix={findings}/{target}-"]
    from_time = time.monotonic()
    executions = 0
    text = ""
    failed = False
    with log.open("w") as output:
        while (left := seconds - (time.monotonic() - from_time)) > 0:
            done = subprocess.run(
                [*command, f"-max_total_time={max(round(left), 1)}"],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=BUILD,
                check=False,
            )
            text = log.read_text(errors="replace")
            executions = sum(map(int, re.findall(r"number_of_executed_units: (\d+)", text)))
            failed = done.returncode != 0
            if not (failed and is_late_only(target, text)):
                break
            failed = False
    took = time.monotonic() - from_time
    progress = re.findall(r"^#\d+\s.*?cov: (\d+).*?corp: (\S+)", text, re.MULTILINE)
    coverage, corpus = progress[-1] if progress else ("0", "-")
    return Result(target, failed, executions, took, int(coverage), corpus, log)


def is_late_only(target: str, log: str) -> bool:
    """Whether the newest finding is an input that took too long, and by itself does not.

    The time is that of the clock: on a busy machine a process may not run for seconds.
    """
    written = re.findall(r"Test unit written to (\S+-timeout-\w+)$", log, re.MULTILINE)
    if not written or not log.rstrip().rpartition("SUMMARY: ")[2].startswith("libFuzzer: timeout"):
        return False
    again = [program(target), *LIMITS, written[-1]]
    if subprocess.run(again, capture_output=True, cwd=BUILD, check=False).returncode != 0:
        return False
    Path(written[-1]).unlink()
    return True


def keep(target: str) -> None:
    """Copies what the grown corpus reaches and the seeds do not, smallest inputs first."""
    seeds = TARGETS / "corpus" / target
    left = MOST_CORPUS_BYTES - sum(path.stat().st_size for path in seeds.iterdir())
    with tempfile.TemporaryDirectory() as folder:
        merged = Path(folder) / target
        shutil.copytree(seeds, merged)
        # The fewest inputs that reach every edge, however often each is passed.
        cover = ["-set_cover_merge=1", "-use_counters=0", *LIMITS]
        command = [program(target), *cover, str(merged), str(BUILD / "corpus" / target)]
        subprocess.run(command, capture_output=True, cwd=BUILD, check=True)
        new = [path for path in merged.iterdir() if not (seeds / path.name).exists()]
        for path in sorted(new, key=lambda path: path.stat().st_size):
            left -= path.stat().st_size
            if left < 0:
                break
            shutil.copy(path, seeds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(all_targets()))
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--jobs", type=int, default=2, help="targets at once")
    parser.add_argument("--logs", type=Path, default=BUILD / "logs", help="folder for them")
    parser.add_argument("--install", action="store_true", help="clang, where root has apt-get")
    parser.add_argument("--keep", action="store_true", help="afterwards grow tests/fuzz/corpus")
    options = parser.parse_args()
    targets = options.targets or all_targets()
    unknown = set(targets) - set(all_targets())
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")

    clang = find_clang()
    if clang is None and options.install:
        install_clang()
        clang = find_clang()
    if clang is None:
        sys.exit(
            "fuzz: needs clang 14 or later with libFuzzer and the sanitizers, which are not on "
            "this system: install them (Debian, Ubuntu: apt-get install clang libclang-rt-dev; "
            "Fedora: dnf install clang compiler-rt)."
        )
    from_time = time.monotonic()
    build(clang)
    print(f"fuzz: built with {clang} in {time.monotonic() - from_time:.0f} s", flush=True)
    logs = options.logs.resolve()
    logs.mkdir(parents=True, exist_ok=True)

    print(HEADING, flush=True)
    results = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for result in pool.map(lambda target: fuzz(target, options.seconds, logs), targets):
            print(result.row(), flush=True)
            results.append(result)
    findings = [result.target for result in results if result.finding]
    executions = sum(result.executions for result in results)
    print(f"fuzz: {executions} executions, findings: {', '.join(findings) or 'none'}")
    if options.keep and not findings:
        for target in targets:
            keep(target)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
