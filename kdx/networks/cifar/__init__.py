"""The CIFAR families that the distillation papers use. Importing this registers them with timm."""

from kdx.networks.cifar import resnet as resnet
