"""Make `.venv` from the lock file when it is missing or stale, then run a command of ours in it.

    bootstrap.py [--dev] ARGUMENTS-OF-PYTHON…

Needs nothing but Python's standard library, and says in one sentence what is wrong when even that is not enough:
it must therefore parse under any Python 3. The checkout is put on the path by a `.pth` file instead of an editable
install: nothing has to be built, so nothing unlocked has to be fetched.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, '.venv')
PYTHON = os.path.join(VENV, 'bin', 'python')
OLDEST = (3, 11)
KCTL = """#!{python}
import sys
from kctl.main import main
sys.exit(main())
"""


def fail(sentence):
    sys.stderr.write('kubeling: ' + sentence + '\n')
    sys.exit(1)


def digest(lock):
    with open(lock, 'rb') as f:
        text = f.read()
    return hashlib.sha256(text + sys.version.encode()).hexdigest()


def installed(stamp):
    try:
        with open(stamp) as f:
            return f.read()
    except OSError:
        return ''


def run(argv, step):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT)
    if done.returncode != 0:
        sys.stderr.write(done.stdout.decode(errors='replace')[-4000:] + '\n')
        fail(step + ' failed; what the command printed stands above.')


def install(lock, stamp):
    name = os.path.basename(lock)
    sys.stderr.write('· installing what ' + name + ' lists into .venv (first time only, about 20 s) … ')
    sys.stderr.flush()
    began = time.time()
    if not os.path.exists(PYTHON):
        run([sys.executable, '-m', 'venv', VENV], 'making .venv (on Debian, is the package python3-venv installed?)')
    run(
        [PYTHON, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--require-hashes', '-r', lock],
        'installing ' + name,
    )
    site = subprocess.check_output([PYTHON, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))'])
    with open(os.path.join(site.decode().strip(), 'kubeling.pth'), 'w') as f:
        f.write(ROOT + '\n')
    kctl = os.path.join(VENV, 'bin', 'kctl')
    with open(kctl, 'w') as f:
        f.write(KCTL.format(python=PYTHON))
    os.chmod(kctl, 0o755)
    with open(stamp, 'w') as f:
        f.write(digest(lock))
    sys.stderr.write('%.1f s\n' % (time.time() - began))


def ensure(dev):
    """The development lock holds everything the other one holds, in the same versions."""
    locks = [
        (os.path.join(ROOT, n + '.lock'), os.path.join(VENV, '.' + n)) for n in ('requirements-dev', 'requirements')
    ]
    wanted = locks[:1] if dev else locks
    if any(installed(stamp) == digest(lock) for lock, stamp in wanted):
        return
    with open(os.path.join(ROOT, '.venv.lock'), 'w') as guard:  # three terminals may start at once
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not any(installed(stamp) == digest(lock) for lock, stamp in wanted):
            install(*wanted[-1])


def main(argv):
    if sys.version_info < OLDEST:
        fail('needs Python 3.11 or newer, and %s is %d.%d.' % ((sys.executable,) + sys.version_info[:2]))
    dev = argv[:1] == ['--dev']
    ensure(dev)
    os.execv(PYTHON, [PYTHON] + argv[1 if dev else 0 :])


if __name__ == '__main__':
    main(sys.argv[1:])
