"""Replaces the package when a command is run by its path: `python experiments/pretrain.py`.

Python looks in the script's own folder first. It finds the parts of the package there but not the
package itself, unless the clone is on its path.
"""

import importlib.util
import os
import pathlib
import sys

HOME = pathlib.Path(__file__).resolve().parent
# For the imports of the commands, and for the processes that a sweep starts.
sys.path.append(str(HOME.parent))
os.environ['PYTHONPATH'] = os.pathsep.join(
    filter(None, (os.environ.get('PYTHONPATH'), str(HOME.parent))))

_spec = importlib.util.spec_from_file_location(
    'experiments', HOME / '__init__.py', submodule_search_locations=[str(HOME)])
# `import experiments` returns the module that is stored here.
sys.modules['experiments'] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules['experiments'])
