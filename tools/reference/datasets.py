"""Small files of the kinds that data sets are published in.

Written by the tools that the publishers used: the pickles by Python 2's cPickle with NumPy 1.16,
the .mat files by SciPy, compressed.

    python2.7 tools/reference/datasets.py pickles    # needs numpy==1.16.6
    python3 tools/reference/datasets.py mat          # needs scipy
"""

import os
import sys

import numpy as np

OUT = os.path.join(os.path.dirname(__file__), "..", "..", "tests", "fixtures", "published")


def pixels(records):
    """Record r has the value (7 r + p) % 251 at position p."""
    r, p = np.ogrid[:records, :3072]
    return ((7 * r + p) % 251).astype(np.uint8)


def pickles():
    import cPickle

    def write(name, value):
        with open(os.path.join(OUT, name), "wb") as f:
            cPickle.dump(value, f, 2)

    write("data_batch_1", {
        "batch_label": "training batch 1 of 5",
        "labels": [6, 9, 0],
        "data": pixels(3),
        "filenames": ["leptodactylus_pentadactylus_s_000004.png", "camion_s_000148.png", "jet.png"],
    })
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    write("batches.meta", {
        "num_cases_per_batch": 10000, "label_names": names.split(), "num_vis": 3072,
    })
    write("test", {
        "filenames": ["volcano_s_000012.png", "woods_s_000412.png"],
        "batch_label": "testing batch 1 of 1",
        "fine_labels": [49, 33],
        "coarse_labels": [10, 10],
        "data": pixels(2),
    })
    write("meta", {
        "fine_label_names": ["fine_%d" % i for i in range(100)],
        "coarse_label_names": ["coarse_%d" % i for i in range(20)],
    })


def mat():
    from scipy.io import savemat

    def write(name, value):
        savemat(os.path.join(OUT, name), value, do_compression=True)

    write("imagelabels.mat", {"labels": np.array([[77, 77, 1, 102, 1, 102]], np.uint8)})
    write("setid.mat", {
        "trnid": np.array([[2, 5]], np.uint16),
        "valid": np.array([[6]], np.uint16),
        "tstid": np.array([[4, 1, 3]], np.uint16),
    })
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O"),
             ("children", "O")]
    rows = [
        (1.0, "n02119789", "kit fox, Vulpes macrotis", 0.0, np.zeros((0, 0))),
        (2.0, "n02100735", "English setter", 0.0, np.zeros((0, 0))),
        (3.0, "n01440764", "tench, Tinca tinca", 0.0, np.zeros((0, 0))),
        (4.0, "n00001740", "entity", 2.0, np.array([[1.0, 300.0]])),
    ]
    write("meta.mat", {"synsets": np.array(rows, kinds).reshape(4, 1)})


if __name__ == "__main__":
    {"pickles": pickles, "mat": mat}[sys.argv[1]]()
