"""What of a language model's adaptation to an encoder–decoder matters? (arXiv 2504.06225, arm by arm)"""
