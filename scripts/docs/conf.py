"""Configuration of Sphinx. It is copied into the folder with the collected pages."""

project = "taskq"
author = "taskq contributors"
project_copyright = "MIT licence"
html_title = "taskq"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_use_index = False
html_show_sphinx = False
html_show_sourcelink = False
html_extra_path = ["_pictures"]  # pictures in HTML tags, which Sphinx does not copy by itself
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#4650b8", "color-brand-content": "#3f49ad"},
    "dark_css_variables": {"color-brand-primary": "#a3acff", "color-brand-content": "#a3acff"},
}
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_pictures"]
myst_heading_anchors = 6
myst_links_external_new_tab = False
suppress_warnings = ["misc.highlighting_failure"]  # code blocks may contain `...`, which their language does not allow
pygments_style = "friendly"
pygments_dark_style = "github-dark"
nitpicky = True
