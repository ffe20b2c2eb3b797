# SPDX-License-Identifier: Apache-2.0
"""How much a request may ask for, and how much may wait.

Whatever comes in, memory and the time of one turn of the model are bounded by
these; README and BUILD.md name them.
"""

BODY_BYTES = 1 << 20  # of a request
BODY_SECONDS = 30.0  # from its head to the end of its body
BATCH = 256  # users, items or interactions of a request
K = 1000  # items of a list
LISTED = 20_000  # items of all lists of a request
HISTORY = 1000  # ids of a history that a request tells
ID_LENGTH = 256  # characters of an id
REASONS = 3  # of content and preference, and as many of the history
PASSED = 4096  # users of a request times the passes of its policy
SHOWN = 10_000  # rows of the log at a time
EXPLAINED = 50  # items of a request that get reasons
# Users and items of all requests that wait for the model; beyond, 503 at once.
WAITING = 256
LATE_SECONDS = 1.0  # before a request is read; beyond, likewise
REQUESTS = 1024  # that are read or answered at a time; beyond, likewise
RETRY_SECONDS = 1  # of Retry-After
# Users of one compiled call: few sizes, each compiled before the first request.
SIZES = (1, 8, 64, 256)
