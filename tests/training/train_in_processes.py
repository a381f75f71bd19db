"""What test_processes.py starts with torchrun: the command line, with a preset that takes longer or drops nothing out.

torchrun --nproc-per-node 2 tests/train_in_processes.py '{"epochs": 3}' train --preset tiny --out FOLDER
"""

import json
import sys
from dataclasses import replace

from bertrec_utils.__main__ import main
from bertrec_utils.settings import PRESETS

PRESETS["tiny"] = replace(PRESETS["tiny"], **json.loads(sys.argv[1]))
main(sys.argv[2:])
