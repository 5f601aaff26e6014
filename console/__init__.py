"""The one map (城市运行态势一张图): an extra that everything else works without.

Will own the page and the server behind it. Holds nothing yet.
"""
