"""Run the notebooks in order and keep their outputs, without progress bars: what is committed.

python notebooks/refresh.py                  all five, with the preset in BERTREC_PRESET, else small
python notebooks/refresh.py 04_evaluate      only that one
"""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
WIDGET = "application/vnd.jupyter.widget-view+json"


def run(path):
    notebook = nbformat.read(path, as_version=4)
    started = time.perf_counter()
    NotebookClient(notebook, timeout=None, resources={"metadata": {"path": FOLDER}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # time stamps, different in every run
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
    notebook.metadata.pop("widgets", None)
    partial = path.with_suffix(".partial")
    nbformat.write(notebook, partial)
    partial.replace(path)
    print(f"{path.name}: {time.perf_counter() - started:.0f} s", flush=True)


def main():
    for path in sorted(FOLDER.glob("*.ipynb")):
        if path.stem in sys.argv[1:] or not sys.argv[1:]:
            run(path)


if __name__ == "__main__":
    main()
