return {["reconcile-now"] = {["disabled"] = false}}
