"""scripts/install and scripts/system, with fake versions of pip and apt-get."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import remove_variables

ROOT = Path(__file__).parents[1]

PYTHON = f"""#!/bin/bash
case "$*" in
  "-m venv .venv")
    echo venv >> "$LOG"
    mkdir -p .venv/bin
    ln -sf "$0" .venv/bin/python ;;
  *"-m pip install"*)
    echo "pip ${{*: -1}}" >> "$LOG"
    echo "Requirement already satisfied: a"
    echo "Collecting b"
    $PIP ;;
  *"import pip"*) exit 0 ;;
  *) exec {sys.executable} "$@" ;;
esac
"""
"""A fake Python that makes a .venv and writes every installation to $LOG."""


def test_the_tests_do_not_depend_on_the_environment() -> None:
    path = {"PATH": "/bin", "HOME": "/", "NORMBENCH_BROWSER": "chromium"}
    others = ("FORCE_COLOR", "GIT_DIR", "HTTPS_PROXY", "NORMBENCH_RESULTS")
    others += ("WANDB_API_KEY", "SLURM_JOB_ID", "http_proxy")
    environment = path | dict.fromkeys(others, "1")
    remove_variables(environment)
    assert environment == path | {"GIT_CONFIG_GLOBAL": os.devnull}


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


class Folder:
    """A copy of the scripts in a folder, with a log of their actions."""

    def __init__(self, path: Path) -> None:
        self.path, self.bin, self.log = path, path.parent / "bin", path.parent / "log"
        self.log.touch()
        for name in ("install", "system"):
            program(path / "scripts" / name, (ROOT / "scripts" / name).read_text())
        (path / "pyproject.toml").write_text("[project]\n")
        self.environment = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "LOG": str(self.log),
            "PIP": "true",
        }

    def start(self, *words: str, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [self.path / "scripts" / words[0], *words[1:]],
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *words: str, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        process = self.start(*words, **environment)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def did(self) -> list[str]:
        """Return the actions since the last call."""
        done = self.log.read_text().splitlines()
        self.log.write_text("")
        return done


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "a folder \N{LATIN SMALL LETTER E WITH ACUTE}")
    program(made.bin / "python3", PYTHON)
    return made


def test_an_install_is_repeated_only_if_something_has_changed(folder: Folder) -> None:
    done = folder.run("install", "dev")
    assert done.returncode == 0, done.stderr
    assert folder.did() == ["venv", "pip .[dev]"]
    assert done.stdout == "  1 Collecting b\n"
    assert "installing normbench[dev]" in done.stderr
    again = folder.run("install", "dev")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert folder.did() == []
    (folder.path / "pyproject.toml").write_text("[project]\nname = 'a'\n")
    assert folder.run("install", "dev").returncode == 0
    assert folder.did() == ["pip .[dev]"]
    assert folder.run("install").returncode == 0
    assert folder.did() == ["pip ."]
    folder.path = folder.path.rename(folder.path.with_name("moved"))
    assert folder.run("install").returncode == 0
    assert folder.did() == ["pip ."]
    python = folder.path / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/no/such/python")
    assert folder.run("install").returncode == 0
    assert folder.did() == ["venv", "pip ."]
    version = '  *"version_info[:3]"*) echo 9.9.9 ;;\n'
    other = PYTHON.replace("  *) exec", f"{version}  *) exec")
    program(folder.bin / "python9", other)
    for expected in (["venv", "pip ."], []):
        assert folder.run("install", PYTHON="python9").returncode == 0
        assert folder.did() == expected
    old = folder.run("install", PYTHON="false")
    assert old.returncode == 1
    assert "needs Python 3.11 or later" in old.stderr


def test_an_interrupted_install_starts_again(folder: Folder) -> None:
    for pip in ("kill -9 $PPID", "false"):
        assert folder.run("install", PIP=pip).returncode != 0, pip
        assert folder.did() == ["venv", "pip ."]
    left = folder.path / ".venv" / "half-written"
    left.touch()
    done = folder.run("install")
    assert done.returncode == 0, done.stderr
    assert "interrupted" in done.stderr
    assert folder.did() == ["venv", "pip ."]
    assert not left.exists()


def test_two_simultaneous_installs_install_once(folder: Folder) -> None:
    first = folder.start("install", PIP="sleep 1")
    deadline = time.monotonic() + 30
    while "pip ." not in folder.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    second = folder.run("install")
    assert second.returncode == 0, second.stderr
    assert "waiting for another install" in second.stderr
    assert first.wait(30) == 0
    assert folder.did() == ["venv", "pip ."]
    for pipe in (first.stdout, first.stderr):
        assert pipe is not None
        pipe.close()


APT = """#!/bin/bash
echo "apt-get $*" >> "$LOG"
case "$*" in *install*chromium*) printf '#!/bin/bash\\n' > "$BIN/chromium"
  chmod +x "$BIN/chromium" ;; esac
"""


@pytest.fixture
def bare(folder: Folder) -> Folder:
    """Make a machine without a browser, whose programs are in `folder.bin`."""
    for name in ("bash", "chmod", "dirname"):
        path = shutil.which(name)
        assert path is not None
        (folder.bin / name).symlink_to(path)
    for name in ("git", "strace", "c++", "python3-config"):
        program(folder.bin / name, "#!/bin/bash\n")
    program(folder.bin / "id", "#!/bin/bash\necho 1000\n")
    program(folder.path / ".venv" / "bin" / "python", "#!/bin/bash\nexit 1\n")
    folder.environment |= {"PATH": str(folder.bin), "BIN": str(folder.bin)}
    return folder


def test_a_browser_that_starts_is_used(bare: Folder) -> None:
    program(bare.bin / "apt-get", APT)
    for name in ("google-chrome", "chromium-browser", "chromium"):
        program(bare.bin / name, "#!/bin/bash\n")
        done = bare.run("system")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert bare.did() == []
        assert bare.run("system", "--browser").stdout == f"{bare.bin / name}\n"
    for name in ("chromium", "chromium-browser"):
        program(bare.bin / name, "#!/bin/bash\necho snap; exit 1\n")
    found = bare.run("system", "--browser").stdout
    assert found == f"{bare.bin / 'google-chrome'}\n"
    own = bare.path / "my browser"
    program(own, "#!/bin/bash\n")
    named = bare.run("system", "--browser", NORMBENCH_BROWSER=str(own))
    assert named.stdout == f"{own}\n"
    wrong = bare.run("system", "--browser", NORMBENCH_BROWSER="/no/such")
    assert wrong.returncode == 1
    assert "NORMBENCH_BROWSER=/no/such is no program" in wrong.stderr


@pytest.mark.parametrize("user", ["root", "sudo"])
def test_the_distribution_s_browser_is_installed(user: str, bare: Folder) -> None:
    program(bare.bin / "apt-get", APT)
    if user == "root":
        program(bare.bin / "id", "#!/bin/bash\necho 0\n")
    else:  # a sudo that asks for a password would hang
        program(bare.bin / "sudo", '#!/bin/bash\n[ "$1" = -n ] && shift && "$@"\n')
        (bare.bin / "true").symlink_to("/bin/true")
    done = bare.run("system")
    assert done.returncode == 0
    assert "installing with apt-get: chromium" in done.stderr
    update, install = bare.did()
    assert "update" in update and "install chromium" in install
    assert bare.run("system", "--browser").stdout == f"{bare.bin / 'chromium'}\n"


def test_other_missing_packages_are_installed_too(bare: Folder) -> None:
    program(bare.bin / "chromium", "#!/bin/bash\n")
    program(bare.bin / "id", "#!/bin/bash\necho 0\n")
    (bare.bin / "c++").unlink()
    site = bare.path / ".venv" / "lib" / "python3.11" / "site-packages"
    program(site / "playwright" / "driver" / "node", "#!/bin/bash\nexit 127\n")
    assert bare.run("system").returncode == 0  # without apt-get
    program(bare.bin / "apt-get", APT)
    done = bare.run("system")
    assert done.returncode == 0
    assert "installing with apt-get: g++ libatomic1" in done.stderr
    _, install = bare.did()
    assert install.endswith("install g++ libatomic1")


def test_playwright_s_browser_is_the_last_resort(bare: Folder, tmp_path: Path) -> None:
    chrome = tmp_path / "browsers" / "chromium-1" / "chrome-linux" / "chrome"
    playwright = f"#!/bin/bash\necho \"$*\" >> $LOG\nprintf '' > '{chrome}'\n"
    playwright += f"chmod +x '{chrome}'\n"
    chrome.parent.mkdir(parents=True)
    program(bare.path / ".venv" / "bin" / "python", playwright)
    where = {"PLAYWRIGHT_BROWSERS_PATH": str(tmp_path / "browsers")}
    assert bare.run("system", **where).returncode == 0
    assert bare.did() == ["-m playwright install chromium"]
    assert bare.run("system", "--browser", **where).stdout == f"{chrome}\n"


def test_without_any_browser_a_message_says_what_to_install(
    bare: Folder,
) -> None:
    program(bare.bin / "apt-get", APT)
    program(bare.bin / "sudo", "#!/bin/bash\nexit 1\n")  # it would ask for a password
    done = bare.run("system")
    assert done.returncode == 0  # all but the tests of the report can be run
    assert bare.did() == []
    assert "apt-get install chromium" in done.stderr
    absent = bare.run("system", "--browser")
    assert (absent.returncode, absent.stdout) == (1, "")
    (message,) = absent.stderr.splitlines()
    assert "apt-get install chromium" in message
    assert "NORMBENCH_BROWSER" in message
