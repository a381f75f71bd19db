"""Run the notebooks in order and keep their outputs, without progress bars: what is committed.

python notebooks/refresh.py                  all of them, with the preset in BERTREC_PRESET, else small
python notebooks/refresh.py 04_evaluate      only that one
"""

import base64
import io
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parent
WIDGET = "application/vnd.jupyter.widget-view+json"
PNG = "image/png"


def is_kept(output):
    """All but progress bars: widgets that have nothing to show without a kernel."""
    data = output.get("data", {})
    return WIDGET not in data or "text/html" in data


def smaller(picture):
    """A PNG figure in base64 with 256 colours: a third of the size, and the eye sees no difference."""
    image, content = Image.open(io.BytesIO(base64.b64decode(picture))), io.BytesIO()
    image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(content, "png", optimize=True)
    return base64.b64encode(content.getvalue()).decode()


def run(path):
    notebook = nbformat.read(path, as_version=4)
    started = time.perf_counter()
    client = NotebookClient(notebook, timeout=None, resources={"metadata": {"path": FOLDER}}, coalesce_streams=True)
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # time stamps, different in every run
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if is_kept(output)]
            for output in cell.outputs:
                data = output.get("data", {})
                data.pop(WIDGET, None)  # nobody can click on what is committed
                if PNG in data:
                    data[PNG] = smaller(data[PNG])
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
