"""Installs a wheel into a fresh environment and uses it there: from Python, as a command, from C++.

python tools/smoke_test_wheel.py dist/mistral_ext-....whl
"""

import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

from build_backend import find_tool

ROOT = Path(__file__).parent.parent.resolve()
EXPECTED = [
    r"mistral_ext/_C\..*\.so",
    r"mistral_ext/_build_info\.py",
    r"mistral_ext/lib/libmistral_ext\.so",
    r"mistral_ext/include/mistral_ext/mistral_ext\.h",
    r"mistral_ext/include/mistral_ext/ops/rms_norm\.h",
    r"mistral_ext/include/mistral_ext/version\.h",
    r"mistral_ext/share/cmake/mistral_ext/mistral_extConfig\.cmake",
    r"mistral_ext/share/cmake/mistral_ext/mistral_extTargets\.cmake",
    r".*dist-info/licenses/LICENSE",
    *(rf".*dist-info/licenses/.*{path.name}" for path in (ROOT / "licenses").glob("*.txt")),
]
# Where the wheel was built means nothing where it is installed.
OF_THE_BUILD = [str(ROOT), sys.prefix, tempfile.gettempdir() + "/", "/site-packages/"]


def check_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        for pattern in EXPECTED:
            if not any(re.fullmatch(pattern, name) for name in names):
                sys.exit(f"{wheel.name} lacks {pattern}")
        for name in names:
            content = archive.read(name)
            found = [path for path in OF_THE_BUILD if path.encode() in content]
            if found and name.endswith((".so", ".cmake", ".h", ".py")):
                sys.exit(f"{wheel.name}: {name} names a folder of the build: {found[0]}")
    print(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size / 1e6:.1f} MB")


def check_rpaths(package: Path) -> None:
    """The libraries find each other, and torch, by where they lie."""
    for library in [*package.glob("_C*.so"), package / "lib" / "libmistral_ext.so"]:
        dynamic = run("readelf", "-d", str(library))
        for path in re.search(r"R(?:UN)?PATH.*\[(.*)\]", dynamic)[1].split(":"):
            if not path.startswith("$ORIGIN"):
                sys.exit(f"{library.name} looks for libraries in {path}")


def run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def check_cpp_app(python: str, folder: Path) -> None:
    """examples/cpp_app against the wheel: it must write what Python makes."""
    prefix = run(
        python, "-c", "import mistral_ext; print(mistral_ext.cmake_prefix_path)", cwd=folder
    )
    source = ROOT / "examples" / "cpp_app"
    arguments = ["-S", str(source), "-B", str(folder / "build"), "-G", "Ninja"]
    arguments += [f"-DCMAKE_MAKE_PROGRAM={find_tool('ninja')}", "-DCMAKE_BUILD_TYPE=Release"]
    cmake = find_tool("cmake")
    run(cmake, *arguments, f"-DCMAKE_PREFIX_PATH={prefix.strip()}")
    run(cmake, "--build", str(folder / "build"))
    model, prompt = str(folder / "model"), "Once upon a time"
    expected = run(python, str(ROOT / "tests/packaging/expected_text.py"), model, prompt)
    printed = run(str(folder / "build" / "cpp_app"), model, prompt)
    if printed != expected or not printed.startswith(prompt):
        sys.exit(f"the C++ program printed {printed!r}, expected {expected!r}")
    print("a C++ program finds it with find_package and writes the text that Python makes")


def main() -> None:
    wheel = Path(sys.argv[1]).resolve()
    check_contents(wheel)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        venv.create(folder / "venv", with_pip=True)
        python = str(folder / "venv" / "bin" / "python")
        run(python, "-m", "pip", "install", "--quiet", str(wheel))
        print(run(python, str(ROOT / "tests/packaging/check_installed.py"), cwd=folder).strip())
        package = run(
            python, "-c", "import mistral_ext; print(mistral_ext.__path__[0])", cwd=folder
        )
        check_rpaths(Path(package.strip()))
        run(str(folder / "venv" / "bin" / "mistral-ext"), "--help", cwd=folder)
        print("the command mistral-ext starts")
        check_cpp_app(python, folder)
    print("wheel smoke test: passed")


if __name__ == "__main__":
    main()
