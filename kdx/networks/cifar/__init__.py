"""CIFAR networks of the distillation papers. Importing this package registers them with timm."""

from kdx.networks.cifar import mobilenetv2 as mobilenetv2
from kdx.networks.cifar import resnet as resnet
from kdx.networks.cifar import resnet50 as resnet50
from kdx.networks.cifar import shufflenetv1 as shufflenetv1
from kdx.networks.cifar import shufflenetv2 as shufflenetv2
from kdx.networks.cifar import vgg as vgg
from kdx.networks.cifar import wrn as wrn
