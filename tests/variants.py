"""Cases that repeat on another family, mesh or setting what a case beside them always tests: `pytest -m slow` runs them.

A line is the beginning of a test's name; in brackets, how its parameters begin.
"""

LATER = """
test_generate_command.py::test_weights_and_computation_may_have_fewer_bits[stacked
test_inference_beam.py::test_a_mesh_changes_nothing[gpt2
test_inference_beam.py::test_every_family_finds_the_texts_of_transformers[llama
test_inference_beam.py::test_every_family_finds_the_texts_of_transformers[marian
test_inference_beam.py::test_every_family_finds_the_texts_of_transformers[mistral
test_inference_beam.py::test_every_family_finds_the_texts_of_transformers[pegasus
test_inference_beam.py::test_length_penalties_and_ways_to_stop[2-0.0
test_inference_beam.py::test_length_penalties_and_ways_to_stop[2-1.0
test_inference_beam.py::test_length_penalties_and_ways_to_stop[3--1.0
test_inference_beam.py::test_length_penalties_and_ways_to_stop[3-1.0
test_inference_beam.py::test_length_penalties_and_ways_to_stop[4-0.0
test_inference_beam.py::test_length_penalties_and_ways_to_stop[4-2.0
test_inference_beam_groups.py::test_diverse_beams_are_those_of_the_paper[gpt2-4-2-0.9
test_inference_beam_groups.py::test_diverse_beams_are_those_of_the_paper[t5-4-2
test_inference_contrastive.py::test_rows_of_unlike_lengths_are_the_papers_token_for_token[t5
test_inference_edges.py::test_a_mesh_changes_no_token[llama
test_inference_edges.py::test_padding_may_stand_on_either_side_or_between[llama
test_inference_edges.py::test_the_cache_grows_and_says_the_same[llama
test_inference_generate.py::test_a_decoder_with_a_transform_in_its_head_goes_by_its_logits[electra
test_inference_generate.py::test_the_loss_of_such_a_decoder_is_that_of_its_logits[electra
test_inference_parity.py::test_greedy_tokens_and_their_logprobs_are_those_of_transformers[llama
test_inference_parity.py::test_greedy_tokens_and_their_logprobs_are_those_of_transformers[marian
test_inference_parity.py::test_greedy_tokens_and_their_logprobs_are_those_of_transformers[pegasus
test_inference_speculative.py::test_drawn_texts_have_the_distribution_of_the_model[min_p
test_inference_speculative.py::test_drawn_texts_have_the_distribution_of_the_model[top_k
test_inference_speculative.py::test_drawn_texts_have_the_distribution_of_the_model[typical_p
test_inference_speculative.py::test_rows_that_accept_unlike_numbers_have_the_tokens_of_greedy_decoding[bart
test_inference_speculative.py::test_rows_that_accept_unlike_numbers_have_the_tokens_of_greedy_decoding[mistral
test_inference_speculative.py::test_rules_hold_for_guesses_one_by_one[bad_words_ids
test_inference_speculative.py::test_rules_hold_for_guesses_one_by_one[presence_penalty
test_inference_turned.py::test_texts_do_not_depend_on_it[beams-llama
test_inference_turned.py::test_texts_do_not_depend_on_it[greedy-llama
test_models_contract.py::test_a_mesh_and_the_stacked_layout_change_nothing[qwen3]
test_models_contract.py::test_a_mesh_and_the_stacked_layout_change_nothing[roberta]
test_models_contract.py::test_dropout_needs_a_key_and_only_a_key[qwen3]
test_models_contract.py::test_dropout_needs_a_key_and_only_a_key[roberta]
test_models_contract.py::test_every_token_of_a_packed_row_has_the_logits_of_its_own_text[albert-multiple-choice
test_models_contract.py::test_every_token_of_a_packed_row_has_the_logits_of_its_own_text[distilbert-multiple-choice
test_models_contract.py::test_every_token_of_a_packed_row_has_the_logits_of_its_own_text[electra-multiple-choice
test_models_contract.py::test_every_token_of_a_packed_row_has_the_logits_of_its_own_text[gemma2-sequence-classification
test_models_contract.py::test_every_token_of_a_packed_row_has_the_logits_of_its_own_text[mbart-sequence-classification
test_models_contract.py::test_every_token_of_a_packed_row_has_the_logits_of_its_own_text[mistral-sequence-classification
test_models_contract.py::test_every_token_of_a_packed_row_has_the_logits_of_its_own_text[qwen2-sequence-classification
test_models_contract.py::test_every_token_of_a_packed_row_has_the_logits_of_its_own_text[roberta-prelayernorm-multiple-choice
test_models_contract.py::test_every_token_of_a_packed_row_has_the_logits_of_its_own_text[xlm-roberta-multiple-choice
test_models_contract.py::test_every_token_of_a_packed_row_has_the_logits_of_its_own_text[xlm-roberta-sequence-classification
test_models_contract.py::test_padding_and_packing_change_nothing[qwen3]
test_models_contract.py::test_padding_and_packing_change_nothing[roberta]
test_pretrained_start.py::test_a_run_is_a_checkpoint_too[stacked-unrolled
test_sharding.py::test_every_mesh_has_the_losses_of_none[(1, 1, 8)
test_sharding.py::test_every_mesh_has_the_losses_of_none[(1, 8, 1)
test_sharding.py::test_every_mesh_has_the_losses_of_none[(2, 4, 1)
test_sharding.py::test_the_delicate_optimizers_run_the_whole_step[adafactor
test_tasks_pretraining.py::test_a_mesh_changes_no_loss[next-sentence
test_tasks_pretraining.py::test_a_mesh_changes_no_loss[sentence-order
test_tasks_pretraining.py::test_the_head_at_some_places_is_the_head_at_these_places[albert
test_tasks_pretraining.py::test_the_head_at_some_places_is_the_head_at_these_places[distilbert
test_tasks_pretraining.py::test_the_head_at_some_places_is_the_head_at_these_places[electra
test_tasks_pretraining.py::test_the_head_at_some_places_is_the_head_at_these_places[roberta
test_tasks_pretraining.py::test_the_loss_of_pairs_adds_both_means[sentence-order
test_train_text_to_text.py::test_every_family_learns_with_its_tokenizers_special_tokens[marian
test_train_text_to_text.py::test_every_family_learns_with_its_tokenizers_special_tokens[transformer
test_training_tuning.py::test_a_mesh_divides_the_updates_as_their_matrices[stacked
test_training_tuning.py::test_a_table_that_is_tied_learns_by_a_low_rank_update[stacked
""".split("\n")[1:-1]

# Parity with torch: every family's main head always; heads over labels, and the other shapes of a family, where no other has them.
WHOLE = ("bert ", "bart ", "gpt2 ", "modernbert ", "t5 ")
MAIN = ("masked-lm", "seq2seq-lm", "causal-lm")


def is_later(name: str) -> bool:
    """Whether a test, by its name after the folder, is one of them."""
    place, _, case = name.partition("::test_equal_to_torch[")
    if place == "test_parity.py":
        family, task, *more = case.rstrip("]").split()
        return f"{family} " not in WHOLE and (task not in MAIN or "untied" in more and task == "masked-lm")
    return name.startswith(tuple(LATER))
