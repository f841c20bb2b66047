"""Pretrained networks that measure images for benchmarks: detectors, colours, depth, BLIP-VQA. One a file."""

from unigap.instruments.base import Detector, Found, Instrument
from unigap.instruments.blip_vqa import BlipVqa
from unigap.instruments.box_detector import BoxDetector
from unigap.instruments.clip_colors import ClipColors
from unigap.instruments.depth_map import DepthMap
from unigap.instruments.instance_detector import InstanceDetector
from unigap.instruments.named_detector import NamedDetector

__all__ = [
    "BlipVqa",
    "BoxDetector",
    "ClipColors",
    "DepthMap",
    "Detector",
    "Found",
    "InstanceDetector",
    "Instrument",
    "NamedDetector",
]
