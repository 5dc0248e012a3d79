"""What the papers say of their recipes, typed by hand from them, for tests to hold conf/ against."""

# arXiv:2211.16231: teacher, student.
PAIRS = {
    "resnet56_resnet20": ("cifar_resnet56", "cifar_resnet20"),
    "resnet110_resnet32": ("cifar_resnet110", "cifar_resnet32"),
    "resnet110_resnet20": ("cifar_resnet110", "cifar_resnet20"),
    "wrn_40_2_wrn_16_2": ("cifar_wrn_40_2", "cifar_wrn_16_2"),
    "wrn_40_2_wrn_40_1": ("cifar_wrn_40_2", "cifar_wrn_40_1"),
    "vgg13_vgg8": ("cifar_vgg13_bn", "cifar_vgg8_bn"),
    "wrn_40_2_shufflenetv1": ("cifar_wrn_40_2", "cifar_shufflenetv1"),
    "vgg13_mobilenetv2": ("cifar_vgg13_bn", "cifar_mobilenetv2"),
    "resnet50_mobilenetv2": ("cifar_resnet50", "cifar_mobilenetv2"),
    "resnet32x4_shufflenetv1": ("cifar_resnet32x4", "cifar_shufflenetv1"),
    "resnet32x4_shufflenetv2": ("cifar_resnet32x4", "cifar_shufflenetv2"),
}
LIGHT = ("cifar_mobilenetv2", "cifar_shufflenetv1", "cifar_shufflenetv2")  # their learning rate is 0.01
PLUGINS = ("kd", "pkt", "sp", "vid", "crd", "srrl", "dkd")

# arXiv:2106.05237, table 4: temperature, learning rate, weight decay, epochs.
PATIENCE = {
    "flowers102_1k": (10, 0.003, 1e-3, 1_000),
    "flowers102_10k": (10, 0.003, 3e-4, 10_000),
    "flowers102_100k": (1, 0.001, 1e-4, 100_000),
    "flowers102_1m": (1, 0.0003, 1e-5, 1_000_000),
    "pets_300": (2, 0.01, 1e-5, 300),
    "pets_1k": (5, 0.01, 1e-3, 1_000),
    "pets_3k": (10, 0.003, 3e-4, 3_000),
    "pets_10k": (2, 0.001, 1e-4, 10_000),
    "pets_30k": (2, 0.003, 1e-5, 30_000),
    "food101_100": (10, 0.01, 1e-3, 100),
    "food101_1k": (10, 0.001, 3e-4, 1_000),
    "food101_3k": (5, 0.01, 1e-4, 3_000),
    "sun397_100": (10, 0.01, 1e-3, 100),
    "sun397_1k": (10, 0.003, 1e-4, 1_000),
    "sun397_3k": (10, 0.01, 3e-5, 3_000),
}
# The same paper, tables 1 and 3: pixels of the teachers, pixels of the student.
BIT_PAIRS = {
    "bit128_bit128": ([128], 128),
    "bit224_bit224": ([224], 224),
    "bit224_bitm224": ([224], 224),
    "bit224_bit160": ([224], 160),
    "bit384_bit224": ([384], 224),
    "bit384_224_bit224": ([384, 224], 224),
    "bit224_mobilenetv3": ([224], 224),
    "bit384_224_mobilenetv3": ([384, 224], 224),
}
