"""Models given away and taken over: `metacalo push` and `metacalo pull`, through a hub of models."""

from metacalo.sharing.pull import Pulled, PullSettings, pull
from metacalo.sharing.push import Pushed, PushSettings, push

__all__ = ["PullSettings", "Pulled", "PushSettings", "Pushed", "pull", "push"]
