# SPDX-License-Identifier: Apache-2.0
"""`run.py tune`: settings that are found on the validation sets."""
