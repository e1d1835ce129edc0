"""Say which versions in constraints.txt have a known vulnerability, by pip-audit; fail if one has.

A source that cannot be reached is no failure of this project: how many packages were looked up is said.
"""

import json
import subprocess
import sys
from pathlib import Path

LOCKED = Path(__file__).parents[1] / "constraints.txt"


def main() -> str | None:
    """Return what is wrong, None if nothing is known to be."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCKED), "--no-deps", "--disable-pip"]
    command += ["--format=json", "--progress-spinner=off", "--timeout=10"]
    audit = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(audit.stdout)["dependencies"]
    except ValueError:
        print("pip-audit could not look anything up:", *audit.stderr.strip().splitlines()[-1:])
        return None
    found = [
        f"{package['name']} {package['version']}: {known['id']}, fixed in {known['fix_versions']}"
        for package in packages
        for known in package.get("vulns", [])
    ]
    unknown = sum("skip_reason" in package for package in packages)
    print(f"pip-audit: {len(packages) - unknown} packages looked up, {unknown} not found at the source")
    return "\n".join(found) or None


if __name__ == "__main__":
    sys.exit(main())
