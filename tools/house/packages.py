"""Debian packages that the work needs: tools/packages.txt, in sections."""

import os
import shutil
import subprocess

from .host import ROOT, GiveUp, say


def sections():
    """{section: [package, ...]} of tools/packages.txt."""
    found, name = {}, None
    for line in (ROOT / "tools" / "packages.txt").read_text(encoding="utf-8").splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("["):
            name = line.strip("[]")
            found[name] = []
        elif line:
            found[name].append(line)
    return found


def missing(wanted):
    """Those of the packages that are not installed."""
    listing = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *wanted],
                             capture_output=True, text=True, check=False)
    installed = {line.split()[0] for line in listing.stdout.splitlines() if line.endswith(" installed")}
    return [package for package in wanted if package not in installed]


def ensure(*names):
    """Installs what is missing of the named sections. Gives up, naming it, where that is not possible."""
    wanted = [package for name in names for package in sections()[name]]
    if not shutil.which("dpkg-query"):
        say("No Debian here: not checking for packages (tools/packages.txt lists what is needed).")
        return
    lacking = missing(wanted)
    if not lacking:
        return
    sentence = f"these Debian packages are missing: {' '.join(lacking)}"
    if os.geteuid() == 0:
        rights = []
    elif shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0:
        rights = ["sudo", "-n"]
    else:
        raise GiveUp(f"{sentence}\nInstall them (apt-get install ...) or start this as root.")
    say(f"Installing {' '.join(lacking)}")
    apt = [*rights, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300"]
    for step in (["update"], ["install", "--no-install-recommends", *lacking]):
        try:
            result = subprocess.run(apt + step, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        except FileNotFoundError:
            raise GiveUp(f"{sentence}\nThere is no apt-get to install them with.") from None
        # A failed update need not matter: the lists that are there may do.
        if result.returncode != 0 and step[0] == "install":
            say(result.stdout[-3000:])
            raise GiveUp(f"{' '.join(missing(wanted))}: these Debian packages are missing and apt-get could not "
                         f"install them")
    if lacking := missing(wanted):
        raise GiveUp(f"apt-get said it was done, but these packages are still missing: {' '.join(lacking)}")
