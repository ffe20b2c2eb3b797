# SPDX-License-Identifier: Apache-2.0
"""Showing items on purpose to learn about them, with chances that are known."""
