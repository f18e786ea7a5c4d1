"""What one decision costs, counted where no machine makes a difference: calls, and reads of the online store."""

from __future__ import annotations

import sqlite3
import sys
from dataclasses import dataclass, replace
from datetime import timedelta
from types import FrameType

import numpy as np
from conftest import World

from features.catalog import Channel, Content, Product
from serving.caps import Contact
from serving.content import Contents
from serving.decide import Decider
from serving.history import Past, RecordedPast
from serving.lookup import Customers
from features.schema import States
from features.times import micros
