include: "workflow/Snakefile"


workflow.default_target = "all"  # an included file's first rule is no default by itself
