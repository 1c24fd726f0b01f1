"""Items -> responses -> verdicts -> metrics and report, with plain JSONL between the stages."""
