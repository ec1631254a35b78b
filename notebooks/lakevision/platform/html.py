"""The style sheet of all pages: the run's page and the evaluation report."""

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 68rem; padding: 0 1rem; color: #1d2733; }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.1rem; margin-top: 2.2rem }
.outcome { border-left: .4rem solid #8a97a5; background: #f4f6f8; padding: .7rem 1rem; margin: 1rem 0 }
.outcome.good { border-color: #3c8d53 } .outcome.bad { border-color: #b9423f } .outcome.unsure { border-color: #c98a1b }
table { border-collapse: collapse }
td, th { padding: .25rem .9rem .25rem 0; text-align: left; border-bottom: 1px solid #e2e6ea; vertical-align: top }
img { max-width: 100%; border: 1px solid #e2e6ea }
pre { overflow-x: auto; background: #f4f6f8; padding: .8rem; font-size: .8rem }
"""
