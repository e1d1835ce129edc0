"""The examples of docs/integrations.md, each run by the real framework; the extra `integrations` has them."""

import asyncio
import importlib
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from poker_therapist import get_pattern_storage
from tests.helpers.checkout import ROOT

PAGE = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.slow  # a framework takes a second to import


def example(heading: str) -> str:
    """Return the code below a heading of the page."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.search(r"^```i?python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def need(report: Callable[[str], None]) -> Callable[..., None]:
    """Skip a test without what it is about, and say so in the last lines of the run."""

    def check(*modules: str) -> None:
        missing = [module for module in modules if find_spec(module) is None]
        if missing:
            reason = f"not run with {', '.join(missing)}: pip install -e '.[dev,integrations]' has it"
            report(reason)
            pytest.skip(reason)

    return check


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the program of the example runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_fastapi(need: Callable[..., None], folder: Path) -> None:
    """Fifty requests at once, through a real server on a socket, count to fifty."""
    need("fastapi", "httpx", "uvicorn")
    (folder / "coach_api.py").write_text(example("FastAPI"), encoding="utf-8")
    httpx, uvicorn = importlib.import_module("httpx"), importlib.import_module("uvicorn")

    async def main() -> tuple[list[int], Any]:
        server = uvicorn.Server(uvicorn.Config("coach_api:app", uds="socket", log_level="warning"))
        serving = asyncio.create_task(server.serve())
        while not server.started and not serving.done():
            await asyncio.sleep(0)
        transport = httpx.AsyncHTTPTransport(uds="socket")
        async with httpx.AsyncClient(transport=transport, base_url="http://rex", timeout=60) as client:
            counted = await asyncio.gather(*(client.post("/players/7/hands") for _ in range(50)))
            remembered = (await client.get("/players/7")).json()
        server.should_exit = True
        await serving
        return sorted(answer.json() for answer in counted), remembered

    counted, remembered = asyncio.run(main())

    assert counted == list(range(1, 51))
    assert remembered["patterns"]["count"]["hands"]["value"] == 50


def test_streamlit(need: Callable[..., None], folder: Path) -> None:
    """What one session saves the next one sees, through the same storage."""
    need("streamlit")
    (folder / "coach_page.py").write_text(example("Streamlit"), encoding="utf-8")
    # In a process of its own: Streamlit starts threads and sets up logging.
    program = """
from streamlit.testing.v1 import AppTest

first = AppTest.from_file("coach_page.py", default_timeout=60).run()
first.text_input[0].set_value("bets up after a bad beat").run()
first.button[0].click().run()
second = AppTest.from_file("coach_page.py", default_timeout=60).run()
print([str(one.exception) for one in (first, second)], [shown.value for shown in second.markdown])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True
    )

    assert done.stdout == "['ElementList()', 'ElementList()'] ['bets up after a bad beat']\n"


def test_gunicorn(need: Callable[..., None], folder: Path) -> None:
    """Two workers, forked from a process that has the storage open, count together."""
    need("gunicorn", "httpx")
    (folder / "coach_wsgi.py").write_text(example("gunicorn"), encoding="utf-8")
    httpx = importlib.import_module("httpx")
    command = ["gunicorn", "--preload", "--workers", "2", "--bind", "unix:socket", "coach_wsgi:app"]
    server = subprocess.Popen([sys.executable, "-m", *command], cwd=folder, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        booted = 0
        while booted < 2:
            line = server.stderr.readline()
            assert line, "it has ended"
            booted += "Booting worker" in line

        answers: list[list[str]] = []
        with (
            httpx.Client(transport=httpx.HTTPTransport(uds="socket"), timeout=60) as client,
            ThreadPoolExecutor(8) as threads,
        ):
            while len({pid for _, pid in answers}) < 2 and len(answers) < 2_000:
                found = threads.map(client.get, ["http://rex/7"] * 50)
                answers.extend(answer.text.split(" by ") for answer in found)
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate()

    assert sorted(int(count) for count, _ in answers) == list(range(1, len(answers) + 1))
    assert len({pid for _, pid in answers}) == 2
    assert str(server.pid) not in {pid for _, pid in answers}


def test_jupyter(need: Callable[..., None], folder: Path) -> None:
    """A notebook with the cell, run by a kernel, which has a loop that runs already."""
    need("nbclient", "ipykernel")
    nbformat, nbclient = importlib.import_module("nbformat"), importlib.import_module("nbclient")
    cells = [example("Jupyter"), "await storage.close()"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = nbclient.NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    asyncio.run(client.async_execute())

    (shown,) = [output for cell in notebook.cells for output in cell.outputs]
    assert shown["data"]["text/plain"] == "['Stop after two lost buy-ins.']"
    with get_pattern_storage(folder / "RexVoice.db", migrate=False) as storage:
        assert len(storage.get_insights(7)) == 1
