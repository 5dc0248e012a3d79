"""ImageNet's additional test sets V2, A, R and Sketch: one folder of class folders each, test only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from kdx.data.folders import labeled
from kdx.data.layouts import existing, subfolders
from kdx.data.source import Images, Source, SplitName
from kdx.networks.names import synsets


class ImagenetVariant(Source):
    """A test split of images in root/CLASS/; `names` are WordNet IDs, so ImageNet networks can be tested on it.

    `check` raises ValueError, with the name of a folder, if class folders are missing or unexpected.
    """

    subset = "imagenet"  # whose classes they are
    layout: str
    remedy: str

    def __init__(self, root: str | None) -> None:
        self.root = root

    @property
    def names(self) -> Sequence[str]:  # type: ignore[override]  # known before anything is read
        """The classes' synsets, in the labels' order."""
        return synsets(self.subset)

    @property
    def folders(self) -> Sequence[str]:
        """The classes' folders, in the labels' order."""
        return self.names

    def check(self) -> None:
        root = existing(self.root, self.layout, self.remedy)
        present = set(subfolders(root))
        absent, extra = [name for name in self.folders if name not in present], sorted(present - set(self.folders))
        if absent or extra:
            problem = f"missing class folder {absent[0]}" if absent else f"unknown class folder {extra[0]}"
            raise ValueError(
                f"{root} is not {type(self).__name__}: {problem} ({len(present)} folders). Expected layout: {self.layout}. "
                f"{self.remedy}"
            )

    def splits(self) -> Mapping[SplitName, Images]:
        self.check()
        return {"test": labeled(Path(str(self.root)).expanduser(), self.folders, 3)}


class ImagenetV2(ImagenetVariant):
    """ImageNet-V2 (Recht et al. 2019, arXiv:1902.10811): 10,000 new test images of the 1,000 classes; folders are numbers."""

    num_classes = 1000
    layout = "ROOT/0/*.jpeg to ROOT/999/*.jpeg, the number being the class"
    remedy = "get imagenetv2-matched-frequency.tar.gz from the data set imagenetv2 of its authors (V. Shankar) and unpack it"

    @property
    def folders(self) -> Sequence[str]:
        return [str(label) for label in range(self.num_classes)]


class ImagenetA(ImagenetVariant):
    """ImageNet-A (arXiv:1907.07174): 7,500 photographs of 200 classes that a ResNet-50 got wrong."""

    subset = "imagenet_a"
    num_classes = 200
    layout = "ROOT/WNID/*.jpg, 200 WNID folders such as n01498041"
    remedy = "get imagenet-a.tar, which github.com/hendrycks/natural-adv-examples links, and unpack it"


class ImagenetR(ImagenetVariant):
    """ImageNet-R (arXiv:2006.16241): 30,000 paintings, toys, cartoons ... of 200 classes."""

    subset = "imagenet_r"
    num_classes = 200
    layout = "ROOT/WNID/*.jpg, 200 WNID folders such as n01443537"
    remedy = "get imagenet-r.tar, which github.com/hendrycks/imagenet-r links, and unpack it"


class ImagenetSketch(ImagenetVariant):
    """ImageNet-Sketch (Wang et al. 2019, arXiv:1905.13549): 50 black-and-white drawings of each of the 1,000 classes."""

    num_classes = 1000
    layout = "ROOT/WNID/*.JPEG, 1000 WNID folders such as n01440764"
    remedy = "get ImageNet-Sketch.zip, which github.com/HaohanWang/ImageNet-Sketch links, and unpack it"
