"""A module with small networks, as a user would write them."""

NETWORKS = '''"""Networks of a user."""

import random
import types

import torch
from torch import nn

print("imported")


class Pictures(nn.Module):
    """A CNN with two kinds of norms, written without any knowledge of normbench."""

    def __init__(self, classes=10, width=8, second=nn.GroupNorm):
        super().__init__()
        print("built")
        self.first = nn.Conv2d(1, width, 3, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=1e-3, momentum=0.3)
        self.second = nn.Conv2d(width, width, 3)
        self.gn = nn.GroupNorm(2, width)
        self.head = nn.Linear(width, classes)

    def forward(self, images):
        print("called")
        x = torch.relu(self.bn(self.first(images)))
        x = torch.relu(self.gn(self.second(x)))
        return self.head(x.mean((2, 3)))


class Texts(nn.Module):
    """A Transformer layer over tokens, whose output is an object with logits."""

    def __init__(self, classes=2, vocabulary=2000, width=16):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.last_norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, input_ids, attention_mask):
        assert attention_mask.dtype == torch.int64
        x = self.embedding(input_ids)
        y = self.norm(x)
        pads = attention_mask == 0
        x = x + self.attention(y, y, y, key_padding_mask=pads, need_weights=False)[0]
        x = self.last_norm(x)
        weights = attention_mask[..., None]
        pooled = (x * weights).sum(1) / weights.sum(1)
        return types.SimpleNamespace(logits=self.head(pooled))


def seeded(classes=10):
    torch.manual_seed(random.randrange(10**6))
    return Pictures(classes)


class Seeds(Pictures):
    def __init__(self):
        super().__init__()
        torch.manual_seed(5)


def needs(classes):
    return Pictures(classes)


def text():
    return "no network"


def wrong_input():
    return nn.Sequential(nn.Conv2d(3, 4, 3))


def wrong_output():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(7))


def features():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(2))


def shared():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.SyncBatchNorm(4), nn.Flatten(), nn.LazyLinear(10)
    )


def normless():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))


class Fussy(Pictures):
    """Reads the gain of a norm, which not every norm has at that place."""

    def forward(self, images):
        self.gn.weight.sum()
        return super().forward(images)
'''
