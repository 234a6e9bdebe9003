"""The paper's figures: each module computes what is shown, draws it and puts it into words beside the paper's."""
