"""An answer that ends only where it is cut off: drawn freely, it may end at any token."""

import json

from infra.voice.chat import Sampling

ENDLESS = Sampling(temperature=0, max_tokens=400, schema=json.dumps({"const": " ".join(map(str, range(100, 1000)))}))
