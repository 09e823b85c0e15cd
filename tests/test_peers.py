"""PyTorch and scikit-learn in one process with trainstep, each with an OpenMP team of its own, imported in either order."""

import json
from functools import cache
from typing import Any

import pytest

from .helpers import output_of

pytestmark = pytest.mark.peers
pytest.importorskip("torch")
pytest.importorskip("sklearn")

TRAINSTEP = "import trainstep as ts"
PEERS = "import torch, sklearn.ensemble"
# Each trains on two threads, one after the other, twice; a line of JSON with the bits that each came to.
TRAIN = """
import hashlib, json, sys
import numpy as np
rng = np.random.default_rng(0)
x, y = rng.standard_normal((512, 256), np.float32), rng.integers(0, 10, 512)
results = {}

def digest(*arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()

if "trainstep" in sys.modules:
    ts.set_num_threads(2)
    model = ts.nn.Sequential(ts.nn.Dense(256, 512, activation="relu"), ts.nn.Dense(512, 10), seed=0)
    trainer = ts.Trainer(model, optimizer=ts.optim.Adam(lr=1e-3))
if "torch" in sys.modules:
    torch.set_num_threads(2)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.ReLU(), torch.nn.Linear(512, 10))
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    tx, ty = torch.from_numpy(x), torch.from_numpy(y)
for turn in range(2):
    if "trainstep" in sys.modules:
        trainer.fit(x, y, epochs=2, batch_size=256, progress=False)
        results["trainstep"] = digest(*model.parameters().values())
    if "torch" in sys.modules:
        for _ in range(3):
            adam.zero_grad()
            torch.nn.functional.cross_entropy(net(tx), ty).backward()
            adam.step()
        results["torch"] = digest(*(p.detach().numpy() for p in net.parameters()))
        forest = sklearn.ensemble.HistGradientBoostingClassifier(max_iter=3, random_state=0).fit(x[:, :20], y)
        results["sklearn"] = digest(forest.predict_proba(x[:, :20]))
with open("/proc/self/maps") as maps:
    results["runtimes"] = sorted({line.split()[-1] for line in maps if "gomp" in line})
print(json.dumps(results))
"""


@cache
def train(*imports: str) -> dict[str, Any]:
    env = {"OMP_NUM_THREADS": "2", "TRAINSTEP_NUM_THREADS": None}
    return dict(json.loads(output_of("\n".join([*imports, TRAIN]), env, timeout=300)))


@pytest.mark.parametrize("imports", [(TRAINSTEP, PEERS), (PEERS, TRAINSTEP)], ids=["trainstep first", "peers first"])
def test_each_computes_beside_the_others_what_it_computes_alone(imports: tuple[str, str]) -> None:
    together = train(*imports)
    alone = train(TRAINSTEP) | {k: v for k, v in train(PEERS).items() if k != "runtimes"}
    for library in ("trainstep", "torch", "sklearn"):
        assert together[library] == alone[library], library
    if any("trainstep.libs" in path for path in alone["runtimes"]):  # a repaired wheel: each has brought its own
        assert set(alone["runtimes"]) < set(together["runtimes"])
