"""Sphinx settings for these pages and the API reference. `make docs` builds both."""

import unigap

project = "unigap"
author = copyright = "The unigap authors"
release = unigap.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "evidence/headline.md"]
html_theme = "furo"
html_title = f"unigap {release}"
html_show_copyright = False

myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
