"""VLGuard's records with their requests rewritten so that the first word no longer tells refuse from answer.

In the published training file nearly every harmless question opens with "what", nearly every harmful one about a
harmless picture with "can you", and verbs such as "share" open harmful ones only. Models learn that rule (Chen et al.,
"Safety Mirage", arXiv 2503.11832). Here every subset opens with the same words, equally often.
"""

from vlsafe.data.balance.folder import balance_folder
from vlsafe.data.balance.rewriting import Balanced, balanced

__all__ = ["Balanced", "balance_folder", "balanced"]
