"""Rules: what the options alone tell, each rule broken once and mended once. Needs no torch and no model."""

from __future__ import annotations

from pathlib import Path

import pytest

from truetune.options import Config
from truetune.options.kinds import KINDS
from truetune.options.read import read_config
from truetune.rules import RULES, apply_rules

MODEL, DATA, FOLDER = "model_name_or_path=m", "dataset=d.json", "output_dir=o"
RUN = f"{MODEL} {DATA} {FOLDER}"
TWO = f"{MODEL} dataset=a,b {FOLDER}"
FULL = f"{RUN} finetuning_type=full learning_rate=2e-5"
HELD = f"{RUN} val_size=0.1 eval_strategy=steps"
GRPO = f"{RUN} stage=grpo reward_funcs=exact_number per_device_train_batch_size=8"

METHOD_OPTIONS = [(name, value, more) for name, value, more in (
    ("additional_target", "norm", ""), ("lora_rank", 16, ""), ("lora_alpha", 16, ""), ("lora_dropout", 0.1, ""),
    ("lora_target", "up_proj", ""), ("use_rslora", "true", ""), ("use_dora", "true", ""), ("pissa_init", "true", ""),
    ("pissa_iter", 4, "pissa_init=true"), ("pissa_convert", "true", "pissa_init=true"),
    ("init_lora_weights", "gaussian", ""), ("loraplus_lr_ratio", 4, ""),
    ("loraplus_lr_embedding", 1e-5, "loraplus_lr_ratio=4"), ("freeze_trainable_layers", 3, ""),
    ("freeze_trainable_modules", "mlp", ""), ("freeze_extra_modules", "norm", ""), ("use_llama_pro", "true", ""),
    ("adalora_init_r", 16, ""), ("adalora_tinit", 2, ""), ("adalora_tfinal", 2, ""), ("adalora_deltaT", 2, ""),
    ("adalora_orth_reg_weight", 0.1, ""), ("oft_rank", 8, ""), ("oft_block_size", 64, ""), ("oft_target", "up_proj",
                                                                                            ""),
    ("module_dropout", 0.1, ""), ("num_virtual_tokens", 8, ""), ("prefix_projection", "true", ""),
    ("encoder_hidden_size", 64, "prefix_projection=true"), ("prompt_tuning_init_text", "Answer", ""),
    ("bottleneck_size", 8, ""), ("bottleneck_target", "mlp", ""))]
"""Options of some methods only: a value, and what else it needs."""


def _method_with(name: str) -> str:
    return next(method for method, kind in KINDS.items() if name in kind.options)


def _method_without(name: str) -> str:
    return "bottleneck" if name not in KINDS["bottleneck"].options else "oft"


CASES = [  # rule, option, verb, a configuration that breaks it, the same mended
    ("model-missing", "model_name_or_path", "train", f"{DATA} {FOLDER}", RUN),
    ("model-missing", "model_name_or_path", "chat", "", MODEL),
    ("model-missing", "model_name_or_path", "export", "export_dir=e", f"{MODEL} export_dir=e"),
    ("model-missing", "model_name_or_path", "eval", "task=mmlu_test", f"{MODEL} task=mmlu_test"),
    ("model-missing", "model_name_or_path", "eval", "task=perplexity dataset=d", "task=bleu_rouge:p.jsonl"),
    ("task-missing", "task", "eval", MODEL, f"{MODEL} task=mmlu_test"),
    ("task-unnamed", "task", "eval", f"{MODEL} task=lm_eval:", f"{MODEL} task=lm_eval:hellaswag"),
    ("task-unnamed", "task", "eval", "task=bleu_rouge", "task=bleu_rouge:p.jsonl"),
    ("data-missing", "dataset", "eval", f"{MODEL} task=perplexity", f"{MODEL} task=perplexity eval_dataset=e"),
    ("data-missing", "dataset", "eval", f"{MODEL} task=predict save_dir=s", f"{MODEL} {DATA} task=predict save_dir=s"),
    ("predict-nowhere", "save_dir", "eval", f"{MODEL} {DATA} task=predict", f"{MODEL} {DATA} task=perplexity"),
    ("data-missing", "dataset", "train", f"{MODEL} {FOLDER}", RUN),
    ("data-missing", "dataset", "train", f"{MODEL} {FOLDER} do_train=false do_eval=true val_size=0.1",
     f"{MODEL} {FOLDER} do_train=false do_eval=true eval_dataset=e"),
    ("output-missing", "output_dir", "train", f"{MODEL} {DATA}", RUN),
    ("export-missing", "export_dir", "export", MODEL, f"{MODEL} export_dir=e"),
    ("public-without-key", "api_host", "api", f"{MODEL} api_host=0.0.0.0", f"{MODEL} api_host=127.0.0.1"),
    ("public-without-key", "api_host", "api", f"{MODEL} api_host=::", f"{MODEL} api_host=:: api_key=0123456789abcdef"),
    ("public-without-token", "web_host", "webui", "web_host=0.0.0.0", "web_host=0.0.0.0 web_token=0123456789abcdef"),
    ("short-token", "web_token", "webchat", "web_host=0.0.0.0 web_token=secret", "web_token=secret"),
    ("no-such-root", "web_roots", "webui", "web_roots=no/such/folder", "web_roots=/"),
    ("short-key", "api_key", "api", f"{MODEL} api_host=0.0.0.0 api_key=secret", f"{MODEL} api_key=secret"),
    ("gguf-engine", "infer_backend", "chat", "model_name_or_path=m.gguf",
     "model_name_or_path=m.gguf infer_backend=llamacpp"),
    ("endpoint-engine", "infer_endpoint", "api", f"{MODEL} infer_endpoint=http://x",
     f"{MODEL} infer_endpoint=http://x infer_backend=vllm"),
    ("endpoint-address", "infer_endpoint", "api", f"{MODEL} infer_endpoint=x:80 infer_backend=vllm",
     f"{MODEL} infer_endpoint=https://x:80 infer_backend=vllm"),
    ("endpoint-adapter", "adapter_name_or_path", "chat",
     f"{MODEL} infer_endpoint=http://x infer_backend=vllm adapter_name_or_path=a",
     f"{MODEL} infer_backend=vllm adapter_name_or_path=a"),
    ("engine-key", "infer_api_key", "chat", f"{MODEL} infer_api_key=k",
     f"{MODEL} infer_api_key=k infer_endpoint=http://x infer_backend=sglang"),
    ("engine-changes", "infer_backend", "api", f"{MODEL} infer_backend=vllm quantization_bit=4",
     f"{MODEL} quantization_bit=4"),
    ("engine-merges", "infer_adapters", "api", f"{MODEL} adapter_name_or_path=a,b infer_adapters={{\"c\":1}}",
     f"{MODEL} adapter_name_or_path=a infer_adapters={{\"c\":1}}"),
    ("engine-options", "infer_backend", "chat", f"{MODEL} vllm_enforce_eager=true",
     f"{MODEL} vllm_enforce_eager=true infer_backend=vllm"),
    ("engine-options", "infer_backend", "chat", f"{MODEL} sglang_tp_size=2",
     f"{MODEL} sglang_tp_size=2 infer_backend=sglang"),
    ("engine-length", "infer_maxlen", "chat", f"{MODEL} infer_backend=vllm vllm_maxlen=99 infer_maxlen=99",
     f"{MODEL} infer_backend=vllm infer_maxlen=99"),
    ("nothing-to-do", "do_train", "train", f"{RUN} do_train=false", f"{RUN} do_train=true"),
    ("nothing-to-do", "do_train", "train", f"{HELD} do_train=false predict_with_generate=true",
     f"{HELD} do_train=false predict_with_generate=true do_predict=true"),
    ("predict-stage", "do_predict", "train", f"{HELD} stage=dpo do_predict=true",
     f"{HELD} stage=rm do_predict=true"),
    ("several-losses", "use_dft_loss", "train", f"{RUN} use_dft_loss=true label_smoothing_factor=0.1",
     f"{RUN} label_smoothing_factor=0.1"),
    ("loss-is-sft", "stage", "train", f"{RUN} stage=pt use_eaft_loss=true", f"{RUN} use_eaft_loss=true"),
    ("loss-is-sft", "stage", "train", f"{RUN} stage=kto label_smoothing_factor=0.1",
     f"{RUN} stage=pt label_smoothing_factor=0.1"),
    ("own-answers", "kd_ratio", "train", f"{RUN} stage=distill teacher_model=t lmbda=0.5 kd_ratio=0.5",
     f"{RUN} stage=distill teacher_model=t lmbda=0.5"),
    ("teacher-missing", "teacher_model", "train", f"{RUN} stage=distill", f"{RUN} stage=distill teacher_model=t"),
    ("eval-without-data", "do_eval", "train", f"{RUN} do_eval=true", f"{RUN} do_eval=true val_size=0.1"),
    ("eval-without-data", "eval_strategy", "train", f"{RUN} eval_strategy=epoch",
     f"{RUN} eval_strategy=epoch eval_dataset=e"),
    ("eval-twice", "val_size", "train", f"{RUN} eval_strategy=epoch val_size=0.1 eval_dataset=e",
     f"{RUN} eval_strategy=epoch val_size=0.1"),
    ("eval-late", "eval_strategy", "train", f"{RUN} val_size=0.1", f"{RUN} val_size=0.1 eval_strategy=steps"),
    ("stop-without-eval", "early_stopping_steps", "train", f"{RUN} early_stopping_steps=3",
     f"{RUN} early_stopping_steps=3 val_size=0.1 eval_strategy=steps"),
    ("plateau-without-eval", "lr_scheduler_type", "train", f"{RUN} lr_scheduler_type=reduce_lr_on_plateau",
     f"{RUN} lr_scheduler_type=reduce_lr_on_plateau val_size=0.1 eval_strategy=steps"),
    ("words-untrained", "finetuning_type", "train", f"{RUN} finetuning_type=ia3 add_tokens=abc",
     f"{RUN} finetuning_type=freeze add_tokens=abc"),
    ("words-twice", "add_special_tokens", "train", f"{RUN} add_special_tokens=<a> new_special_tokens_config=w.yaml",
     f"{RUN} new_special_tokens_config=w.yaml"),
    ("words-undescribed", "init_special_tokens", "train", f"{RUN} init_special_tokens=desc_init",
     f"{RUN} init_special_tokens=desc_init new_special_tokens_config=w.yaml"),
    ("rope-not-set", "rope_factor", "train", f"{RUN} rope_factor=2", f"{RUN} rope_factor=2 rope_scaling=yarn"),
    ("rope-dynamic", "rope_scaling", "train", f"{RUN} rope_scaling=dynamic", f"{RUN} rope_scaling=yarn"),
    ("scratch-adapter", "train_from_scratch", "train", f"{RUN} train_from_scratch=true",
     f"{FULL} train_from_scratch=true"),
    ("noise-compared", "neftune_noise_alpha", "train", f"{RUN} stage=dpo neftune_noise_alpha=5",
     f"{RUN} neftune_noise_alpha=5"),
    ("dropout-compared", "attention_dropout", "train", f"{RUN} stage=dpo attention_dropout=0.1",
     f"{RUN} attention_dropout=0.1"),
    ("compile-mode", "torch_compile_mode", "train", f"{RUN} torch_compile_mode=fastest",
     f"{RUN} torch_compile_mode=max-autotune"),
    ("checkpoint-setting", "gradient_checkpointing_kwargs", "train",
     f"{RUN} gradient_checkpointing_kwargs={{\"speed\":1}}",
     f"{RUN} gradient_checkpointing_kwargs={{\"use_reentrant\":true}}"),
    ("offload-off", "activation_offload", "train", f"{RUN} activation_offload=true gradient_checkpointing=false",
     f"{RUN} activation_offload=true"),
    ("liger-setting", "liger_kernel_config", "train", f"{RUN} liger_kernel_config={{\"rope\":true}}",
     f"{RUN} liger_kernel_config={{\"swiglu\":true}}"),
    ("mask-both", "mask_history", "train", f"{RUN} mask_history=true train_on_prompt=true", f"{RUN} mask_history=true"),
    ("streaming-endless", "streaming", "train", f"{RUN} streaming=true", f"{RUN} streaming=true max_steps=10"),
    ("streaming-store", "tokenized_path", "train", f"{RUN} streaming=true max_steps=10 tokenized_path=t",
     f"{RUN} tokenized_path=t"),
    ("streaming-packing", "packing", "train", f"{RUN} streaming=true max_steps=10 packing=true", f"{RUN} packing=true"),
    ("streaming-val", "val_size", "train", f"{RUN} streaming=true max_steps=10 val_size=0.1 eval_strategy=epoch",
     f"{RUN} val_size=0.1 eval_strategy=epoch"),
    ("bad-pattern", "loss_weights", "train", f"{RUN} loss_weights={{\"[\":0.5}}", f"{RUN} loss_weights={{\"a+\":0.5}}"),
    ("interleave-probs", "interleave_probs", "data", f"{MODEL} dataset=a,b mix_strategy=interleave_once "
     "interleave_probs=0.5,0.3,0.2", f"{MODEL} dataset=a,b mix_strategy=interleave_once interleave_probs=0.5,0.3"),
    ("interleave-probs", "interleave_probs", "train", f"{TWO} mix_strategy=interleave_once interleave_probs=-1,1",
     f"{TWO} mix_strategy=interleave_once interleave_probs=1,1"),
    ("interleave-probs", "mix_strategy", "train", f"{TWO} interleave_probs=1,2",
     f"{TWO} interleave_probs=1,2 mix_strategy=interleave_under"),
    ("two-precisions", "fp16", "train", f"{RUN} bf16=true fp16=true", f"{RUN} bf16=true fp16=false"),
    ("warmup-twice", "warmup_ratio", "train", f"{RUN} warmup_steps=5 warmup_ratio=0.1", f"{RUN} warmup_ratio=0.1"),
    ("resume-overwrite", "overwrite_output_dir", "train",
     f"{RUN} overwrite_output_dir=true resume_from_checkpoint=true",
     f"{RUN} overwrite_output_dir=true resume_from_checkpoint=FALSE"),
    ("no-layers", "freeze_trainable_layers", "train", f"{RUN} finetuning_type=freeze freeze_trainable_layers=0",
     f"{RUN} finetuning_type=freeze freeze_trainable_layers=0 freeze_extra_modules=norm"),
    ("adapter-and-whole", "adapter_name_or_path", "train", f"{RUN} finetuning_type=full adapter_name_or_path=a",
     f"{RUN} finetuning_type=lora adapter_name_or_path=a,b"),
    ("adapter-final", "adapter_name_or_path", "train", f"{RUN} finetuning_type=p_tuning adapter_name_or_path=a",
     f"{RUN} finetuning_type=loha adapter_name_or_path=a"),
    ("nothing-merged", "create_new_adapter", "train", f"{RUN} create_new_adapter=true",
     f"{RUN} create_new_adapter=true adapter_name_or_path=a"),
    *(("other-method", name, "train", f"{RUN} finetuning_type={_method_without(name)} {name}={value}",
       f"{RUN} finetuning_type={_method_with(name)} {more} {name}={value}") for name, value, more in METHOD_OPTIONS),
    ("init-quantized", "init_lora_weights", "train", f"{RUN} pissa_init=true quantization_bit=4",
     f"{RUN} init_lora_weights=gaussian quantization_bit=4"),
    ("init-twice", "init_lora_weights", "train", f"{RUN} pissa_init=true init_lora_weights=olora",
     f"{RUN} init_lora_weights=olora"),
    ("dora-begins", "use_dora", "train", f"{RUN} use_dora=true pissa_init=true", f"{RUN} use_dora=true"),
    ("rank-odd", "lora_rank", "train", f"{RUN} init_lora_weights=orthogonal lora_rank=7", f"{RUN} lora_rank=7"),
    ("adalora-rank", "adalora_init_r", "train", f"{RUN} finetuning_type=adalora adalora_init_r=8",
     f"{RUN} finetuning_type=adalora adalora_init_r=9"),
    ("oft-blocks", "oft_block_size", "train", f"{RUN} finetuning_type=oft oft_rank=8 oft_block_size=64",
     f"{RUN} finetuning_type=oft oft_block_size=64"),
    ("oft-blocks", "oft_rank", "train", f"{RUN} finetuning_type=oft oft_block_size=0",
     f"{RUN} finetuning_type=oft oft_rank=8 oft_block_size=0"),
    ("prefix-network", "encoder_hidden_size", "train",
     f"{RUN} finetuning_type=prefix_tuning encoder_hidden_size=64", RUN),
    ("loraplus-embedding", "loraplus_lr_embedding", "train", f"{RUN} loraplus_lr_embedding=1e-5",
     f"{RUN} loraplus_lr_embedding=1e-5 loraplus_lr_ratio=16"),
    ("virtual-rows", "finetuning_type", "train", f"{RUN} finetuning_type=prompt_tuning", RUN),
    ("virtual-checkpointing", "gradient_checkpointing", "train",
     f"{RUN} finetuning_type=prefix_tuning gradient_checkpointing=true", f"{RUN} gradient_checkpointing=true"),
    ("no-tracker", "report_to", "train", f"{RUN} report_to=wandb", f"{RUN} report_to=none"),
    ("high-rate", "learning_rate", "train", f"{RUN} finetuning_type=full learning_rate=2e-4",
     f"{RUN} finetuning_type=full learning_rate=2e-5"),
    ("low-rate", "learning_rate", "train", f"{RUN} learning_rate=1e-5", f"{RUN} learning_rate=2e-5"),
    ("model-only-checkpoints", "save_strategy", "train", f"{RUN} save_only_model=true",
     f"{RUN} save_only_model=true save_strategy=no"),
    ("not-expanded", "model_name_or_path", "chat", "model_name_or_path=~/m", MODEL),
    ("not-expanded", "dataset_dir", "train", f"{RUN} dataset_dir=$HOME/d", f"{RUN} dataset_dir=d$"),
    ("not-expanded", "cache_dir", "train", f"{RUN} cache_dir=~/c", f"{RUN} cache_dir=/c"),
    ("not-expanded", "output_dir", "train", f"{MODEL} {DATA} output_dir=${{HOME}}/o", RUN),
    ("not-expanded", "export_dir", "export", f"{MODEL} export_dir=~/e", f"{MODEL} export_dir=e"),
    ("unknown-template", "template", "chat", f"{MODEL} template=lama3", f"{MODEL} template=llama3"),
    ("same-set-twice", "dataset", "train", f"{MODEL} dataset=a,b,a {FOLDER}", TWO),
    ("eval-is-train", "eval_dataset", "train", f"{RUN} eval_strategy=epoch eval_dataset=d.json",
     f"{RUN} eval_strategy=epoch eval_dataset=e.json"),
    ("all-held-out", "val_size", "train", f"{HELD} val_size=1.0", f"{HELD} val_size=2"),
    ("half-held-out", "val_size", "train", f"{HELD} val_size=0.5", f"{HELD} val_size=0.4"),
    ("one-eval-each", "eval_on_each_dataset", "train", f"{RUN} eval_strategy=epoch eval_dataset=a "
     "eval_on_each_dataset=true", f"{RUN} eval_strategy=epoch eval_dataset=a,b eval_on_each_dataset=true"),
    ("interleave-one", "mix_strategy", "train", f"{RUN} mix_strategy=interleave_once",
     f"{TWO} mix_strategy=interleave_once"),
    ("masks-are-sft", "mask_history", "data", f"{RUN} stage=kto mask_history=true", f"{RUN} stage=kto"),
    ("packing-is-sft", "packing", "data", f"{RUN} stage=dpo packing=true", f"{RUN} stage=dpo packing=false"),
    ("pixels", "image_max_pixels", "data", f"{RUN} image_max_pixels=99 image_min_pixels=100",
     f"{RUN} image_max_pixels=100 image_min_pixels=99"),
    ("pixels", "video_max_pixels", "data", f"{RUN} video_max_pixels=99 video_min_pixels=100",
     f"{RUN} video_max_pixels=100 video_min_pixels=99"),
    ("quantized-full", "quantization_bit", "train", f"{FULL} quantization_bit=4", f"{RUN} quantization_bit=4"),
    ("quantized-twice", "fp8", "train", f"{RUN} fp8=true quantization_bit=4", f"{RUN} fp8=true"),
    ("quantized-kind", "quantization_method", "train", f"{RUN} finetuning_type=loha quantization_bit=4",
     f"{RUN} quantization_bit=4"),
    ("reference-bits", "ref_model_quantization_bit", "train", f"{RUN} stage=dpo ref_model_quantization_bit=4",
     f"{RUN} stage=dpo ref_model_quantization_bit=4 ref_model=r"),
    *(("quantizer-refused", "quantization_method", "chat", f"{MODEL} quantization_bit=8 quantization_method={method}",
       f"{MODEL} quantization_bit=8 quantization_method=torchao")
      for method in ("gptq", "awq", "aqlm", "mxfp4", "fp8", "eetq", "quanto")),
    ("quantizer-bits", "quantization_bit", "train", f"{RUN} quantization_bit=3",
     f"{RUN} quantization_bit=3 quantization_method=hqq"),
    ("quantizer-type", "quantization_type", "train", f"{RUN} quantization_bit=8 quantization_type=fp4",
     f"{RUN} quantization_bit=4 quantization_type=fp4"),
    ("quantizer-type", "quantization_type", "train", f"{RUN} quantization_bit=4 quantization_type=fp8",
     f"{RUN} quantization_bit=8 quantization_type=fp8 quantization_method=torchao"),
    ("quantizer-setting", "quantization_bit", "train", f"{RUN} quantization_method=hqq",
     f"{RUN} quantization_method=hqq quantization_bit=4"),
    ("quantized-adapters", "quantization_bit", "chat", f"{MODEL} quantization_bit=4 adapter_name_or_path=a,b",
     f"{MODEL} quantization_bit=4 adapter_name_or_path=a"),
    ("quantized-export", "quantization_bit", "export", f"{MODEL} export_dir=e quantization_bit=4",
     f"{MODEL} export_dir=e quantization_bit=4 export_base=dequantized"),
    ("float8-backend", "fp8_backend", "train", f"{RUN} fp8=true fp8_backend=te", f"{RUN} fp8=true fp8_backend=torchao"),
    ("quantized-map", "quantization_device_map", "train", f"{RUN} quantization_device_map=auto", RUN),
    ("dropout-high", "lora_dropout", "train", f"{RUN} lora_dropout=0.4", f"{RUN} lora_dropout=0.3"),
    ("rank-high", "lora_rank", "train", f"{RUN} lora_rank=513", f"{RUN} lora_rank=512"),
    ("few-targets", "lora_target", "train", f"{RUN} lora_target=q_proj,v_proj", f"{RUN} lora_target=q_proj,up_proj"),
    ("rate-diverges", "learning_rate", "train", f"{RUN} learning_rate=0.1", f"{RUN} learning_rate=5e-3"),
    ("very-high-rate", "learning_rate", "train", f"{RUN} learning_rate=6e-3", f"{RUN} learning_rate=5e-3"),
    ("tiny-rate", "learning_rate", "train", f"{FULL} learning_rate=1e-8", f"{FULL} learning_rate=1e-6"),
    ("high-decay", "weight_decay", "train", f"{RUN} weight_decay=0.5", f"{RUN} weight_decay=0.1"),
    ("no-clipping", "max_grad_norm", "train", f"{RUN} max_grad_norm=0", f"{RUN} max_grad_norm=0.3"),
    ("hard-clipping", "max_grad_norm", "train", f"{RUN} max_grad_norm=0.001", f"{RUN} max_grad_norm=0.3"),
    ("constant-warmup", "lr_scheduler_type", "train", f"{RUN} lr_scheduler_type=constant warmup_ratio=0.1",
     f"{RUN} lr_scheduler_type=constant_with_warmup warmup_ratio=0.1"),
    ("long-warmup", "warmup_ratio", "train", f"{RUN} warmup_ratio=0.4", f"{RUN} warmup_ratio=0.1"),
    ("schedule-later", "lr_scheduler_type", "train", f"{RUN} lr_scheduler_type=greedy",
     f"{RUN} lr_scheduler_type=cosine"),
    ("min-rate-missing", "lr_scheduler_kwargs", "train", f"{RUN} lr_scheduler_type=cosine_with_min_lr",
     f"{RUN} lr_scheduler_type=cosine_with_min_lr lr_scheduler_kwargs={{\"min_lr\":1e-5}}"),
    ("best-later", "save_strategy", "train", f"{RUN} save_strategy=best", f"{RUN} save_strategy=epoch"),
    ("streaming-auto", "per_device_train_batch_size", "train",
     f"{RUN} streaming=true max_steps=5 per_device_train_batch_size=auto", f"{RUN} per_device_train_batch_size=auto"),
    ("max-steps-wins", "max_steps", "train", f"{RUN} max_steps=5 num_train_epochs=2", f"{RUN} max_steps=5"),
    *(("optimizer-refused", "optim", "train", f"{RUN} optim={name}", f"{RUN} optim=adamw_torch_fused")
      for name in ("adamw_torch_xla", "adamw_torch_npu_fused", "adamw_anyprecision")),
    *(("switch-and-optim", "optim", "train", f"{FULL} {switch}=true optim=sgd", f"{FULL} {switch}=true")
      for switch in ("use_galore", "use_apollo", "use_badam", "use_adam_mini", "use_muon", "adafactor")),
    ("adam-options", "optim", "train", f"{RUN} optim=sgd adam_beta1=0.8", f"{RUN} optim=lion_8bit adam_beta1=0.8"),
    *(("switch-option", f"use_{name}", "train", f"{FULL} {option}", f"{FULL} use_{name}=true {option}")
      for name, option in (("galore", "galore_rank=4"), ("apollo", "apollo_rank=4"), ("badam", "badam_start_block=1"))),
    ("target-without-picture", "optim_target_modules", "train", f"{FULL} optim_target_modules=mlp",
     f"{FULL} optim_target_modules=mlp optim=apollo_adamw"),
    ("badam-ratio", "badam_mode", "train", f"{FULL} use_badam=true badam_mode=ratio", f"{FULL} use_badam=true"),
    ("backward-accumulation", "gradient_accumulation_steps", "train",
     f"{FULL} optim=lomo gradient_accumulation_steps=2", f"{FULL} optim=lomo"),
    ("backward-accumulation", "gradient_accumulation_steps", "train",
     f"{FULL} use_galore=true galore_layerwise=true gradient_accumulation_steps=2",
     f"{FULL} use_galore=true gradient_accumulation_steps=2"),
    ("backward-clipping", "max_grad_norm", "train", f"{FULL} optim=adalomo max_grad_norm=1",
     f"{FULL} optim=adalomo max_grad_norm=0"),
    ("backward-fp16", "fp16", "train", f"{FULL} optimizer_in_backward=true fp16=true",
     f"{FULL} optimizer_in_backward=true bf16=true"),
    ("backward-answers", "stage", "train", f"{GRPO} optimizer_in_backward=true", GRPO),
    ("backward-blocks", "optimizer_in_backward", "train", f"{FULL} use_badam=true optimizer_in_backward=true",
     f"{FULL} use_badam=true"),
    ("schedule-of-free", "lr_scheduler_type", "train", f"{RUN} optim=schedule_free_adamw lr_scheduler_type=cosine",
     f"{RUN} optim=schedule_free_adamw lr_scheduler_type=constant"),
    ("paged-on-cpu", "optim", "train", f"{RUN} optim=paged_adamw_8bit use_cpu=true", f"{RUN} optim=paged_adamw_8bit"),
    ("lora-galore", "finetuning_type", "train", f"{RUN} optim=galore_adamw", f"{FULL} optim=galore_adamw"),
    ("two-optimizers", "use_galore", "train", f"{FULL} use_muon=true adafactor=true",
     f"{FULL} use_galore=true adafactor=true"),  # GaLore with Adafactor inside
    ("rate-diverges", "learning_rate", "train", f"{RUN} optim=lion_8bit learning_rate=0.1",
     f"{RUN} optim=sgd learning_rate=0.1"),
    ("two-optimizers", "use_galore", "train", f"{FULL} use_galore=true use_apollo=true", f"{FULL} use_galore=true"),
    ("lora-galore", "finetuning_type", "train", f"{RUN} use_badam=true", f"{FULL} use_badam=true"),
    ("eval-steps-unused", "eval_steps", "train", f"{RUN} val_size=0.1 eval_strategy=epoch eval_steps=5",
     f"{HELD} eval_steps=5"),
    ("save-steps-unused", "save_steps", "train", f"{RUN} save_strategy=epoch save_steps=5", f"{RUN} save_steps=5"),
    ("best-needs-eval", "load_best_model_at_end", "train", f"{HELD} save_strategy=epoch load_best_model_at_end=true",
     f"{HELD} load_best_model_at_end=true"),
    ("best-without-eval", "load_best_model_at_end", "train", f"{HELD} stage=rm load_best_model_at_end=true",
     f"{HELD} load_best_model_at_end=true"),
    ("generate-is-sft", "predict_with_generate", "train", f"{HELD} stage=dpo predict_with_generate=true",
     f"{HELD} predict_with_generate=true"),
    ("generate-or-accuracy", "compute_accuracy", "train", f"{HELD} compute_accuracy=true predict_with_generate=true",
     f"{HELD} compute_accuracy=true"),
    ("predict-needs-generate", "do_predict", "train", f"{HELD} do_predict=true",
     f"{HELD} do_predict=true predict_with_generate=true"),
    ("eval-without-data", "do_predict", "train", f"{RUN} do_predict=true predict_with_generate=true",
     f"{HELD} do_predict=true predict_with_generate=true"),
    ("calibration-missing", "export_quantization_bit", "export", f"{MODEL} export_dir=e export_quantization_bit=4",
     f"{MODEL} export_dir=e export_quantization_bit=4 export_quantization_dataset=c.jsonl"),
    ("calibration-missing", "export_quantization_bit", "export", f"{MODEL} export_dir=e export_quantization_bit=4",
     f"{MODEL} export_dir=e export_quantization_bit=4 dataset=d.json"),
    ("calibration-missing", "export_quantization_bit", "export", f"{MODEL} export_dir=e export_quantization_bit=4",
     f"{MODEL} export_dir=e export_quantization_bit=4 export_quantization_method=rtn"),
    ("float-bits", "export_quantization_bit", "export",
     f"{MODEL} export_dir=e export_quantization_bit=4 export_quantization_method=fp8",
     f"{MODEL} export_dir=e export_quantization_bit=8 export_quantization_method=fp8"),
    ("hub-id", "export_hub_model_id", "export", f"{MODEL} export_dir=e export_hub_model_id=me/my/model",
     f"{MODEL} export_dir=e export_hub_model_id=me/my-model.1"),
    ("hub-id", "hub_model_id", "train", f"{RUN} push_to_hub=true hub_model_id=me/-model",
     f"{RUN} push_to_hub=true hub_model_id=me/model"),
    ("hub-id", "push_to_hub_model_id", "train", f"{RUN} push_to_hub=true push_to_hub_model_id=a--b",
     f"{RUN} push_to_hub=true push_to_hub_model_id=a-b"),
    ("hub-branch", "hub_revision", "train", f"{RUN} push_to_hub=true hub_revision=a..b",
     f"{RUN} push_to_hub=true hub_revision=v1/first"),
    ("hub-token", "push_to_hub", "train", f"{RUN} push_to_hub=true", RUN),
    ("hub-token", "export_hub_model_id", "export", f"{MODEL} export_dir=e export_hub_model_id=me/model",
     f"{MODEL} export_dir=e"),
    ("hub-id-unused", "hub_model_id", "train", f"{RUN} hub_model_id=me/model",
     f"{RUN} hub_model_id=me/model push_to_hub=true"),
    ("export-format", "export_format", "export", f"{MODEL} export_dir=e export_format=hf,ggml",
     f"{MODEL} export_dir=e export_format=hf,gguf"),
    ("gguf-type", "export_gguf_type", "export", f"{MODEL} export_dir=e export_format=gguf export_gguf_type=q8_0,q7",
     f"{MODEL} export_dir=e export_format=gguf export_gguf_type=q8_0,q6_k"),
    ("gguf-importance", "export_gguf_type", "export",
     f"{MODEL} export_dir=e export_format=gguf export_gguf_type=iq2_xs export_imatrix=false",
     f"{MODEL} export_dir=e export_format=gguf export_gguf_type=iq2_xs"),
    ("gguf-unused", "export_gguf_type", "export", f"{MODEL} export_dir=e export_gguf_type=f16",
     f"{MODEL} export_dir=e export_gguf_type=f16 export_format=ollama"),
    ("gguf-unused", "export_imatrix", "export", f"{MODEL} export_dir=e export_imatrix=true",
     f"{MODEL} export_dir=e export_imatrix=true export_format=gguf"),
    ("alone-format", "export_adapter_only", "export",
     f"{MODEL} export_dir=e adapter_name_or_path=a export_adapter_only=true export_format=hf,ollama",
     f"{MODEL} export_dir=e adapter_name_or_path=a export_adapter_only=true export_format=hf,gguf"),
    ("alone-quantised", "export_adapter_only", "export",
     f"{MODEL} export_dir=e adapter_name_or_path=a export_adapter_only=true export_quantization_bit=4 dataset=d.json",
     f"{MODEL} export_dir=e adapter_name_or_path=a export_quantization_bit=4 dataset=d.json"),
    ("alone-nothing", "export_adapter_only", "export", f"{MODEL} export_dir=e export_adapter_only=true",
     f"{MODEL} export_dir=e export_adapter_only=true adapter_name_or_path=a"),
    ("alone-nothing", "export_adapter_only", "export",
     f"{MODEL} export_dir=e export_adapter_only=true adapter_name_or_path=a,b",
     f"{MODEL} export_dir=e adapter_name_or_path=a,b"),
    ("quantised-hf", "export_quantization_bit", "export",
     f"{MODEL} export_dir=e export_quantization_bit=4 dataset=d.json export_format=gguf",
     f"{MODEL} export_dir=e export_quantization_bit=4 dataset=d.json export_format=gguf,hf"),
    ("method-unused", "export_quantization_method", "export", f"{MODEL} export_dir=e export_quantization_method=fp8",
     f"{MODEL} export_dir=e export_quantization_method=fp8 export_quantization_bit=8"),
    ("unproven-push", "export_parity", "export", f"{MODEL} export_dir=e export_parity=off export_hub_model_id=me/m",
     f"{MODEL} export_dir=e export_parity=ids export_hub_model_id=me/m"),
    ("ppo-reward", "reward_model", "train", f"{RUN} stage=ppo", f"{RUN} stage=ppo reward_model=r"),
    ("ppo-trains", "do_train", "train", f"{HELD} stage=ppo reward_model=r do_train=false do_eval=true",
     f"{HELD} stage=ppo reward_model=r"),
    ("ppo-reward", "reward_model", "train", f"{RUN} stage=ppo", f"{RUN} stage=ppo reward_funcs=exact_number"),
    ("reward-lora", "reward_model_type", "train", f"{FULL} stage=ppo reward_model=r",
     f"{FULL} stage=ppo reward_model=r reward_model_type=full"),
    ("reward-address", "reward_model_type", "train", f"{RUN} stage=ppo reward_model=r reward_model_type=api",
     f"{RUN} stage=ppo reward_model=http://r reward_model_type=api"),
    ("reward-address", "reward_model_type", "train", f"{RUN} stage=ppo reward_model=http://r reward_model_type=full",
     f"{RUN} stage=ppo reward_model=http://r"),
    ("off-policy", "top_p", "train", f"{RUN} stage=ppo reward_model=r top_p=0.7", f"{RUN} stage=ppo reward_model=r"),
    ("off-policy", "top_p", "train", f"{RUN} stage=ppo reward_model=r top_k=50",
     f"{RUN} stage=ppo reward_model=r top_k=0 top_p=1 temperature=0.7"),
    ("smoothing-sigmoid", "dpo_label_smoothing", "train", f"{RUN} stage=dpo pref_loss=ipo dpo_label_smoothing=0.1",
     f"{RUN} stage=dpo dpo_label_smoothing=0.1"),
    ("smoothing-missing", "dpo_label_smoothing", "train", f"{RUN} stage=dpo pref_loss=exo",
     f"{RUN} stage=dpo pref_loss=exo dpo_label_smoothing=0.001"),
    ("smoothing-half", "dpo_label_smoothing", "train", f"{RUN} stage=dpo pref_loss=robust dpo_label_smoothing=0.5",
     f"{RUN} stage=dpo pref_loss=robust dpo_label_smoothing=0.4"),
    ("pref-loss-weights", "pref_loss_weights", "train", f"{RUN} stage=dpo pref_loss=sigmoid,sft pref_loss_weights=1",
     f"{RUN} stage=dpo pref_loss=sigmoid,sft pref_loss_weights=1,0.5"),
    ("pref-loss-weights", "pref_loss_weights", "train", f"{RUN} stage=dpo pref_loss_weights=-1",
     f"{RUN} stage=dpo pref_loss_weights=2"),
    ("one-pair", "per_device_train_batch_size", "train",
     f"{RUN} stage=dpo pref_loss=sigmoid,aot per_device_train_batch_size=1",
     f"{RUN} stage=dpo pref_loss=sigmoid,aot per_device_train_batch_size=8"),
    ("reference-unused", "ref_model", "train", f"{RUN} stage=dpo pref_loss=orpo ref_model=r",
     f"{RUN} stage=dpo ref_model=r"),
    ("preference-option", "stage", "train", f"{RUN} pref_beta=0.2", f"{RUN} stage=dpo pref_beta=0.2"),
    ("no-reward", "reward_funcs", "train", f"{RUN} stage=grpo per_device_train_batch_size=8", GRPO),
    ("reward-weights", "reward_weights", "train", f"{GRPO} reward_weights=1,2", f"{GRPO} reward_weights=2"),
    ("no-pattern", "reward_pattern", "train", f"{GRPO} reward_funcs=format",
     f"{GRPO} reward_funcs=format reward_pattern=a+"),
    ("bad-pattern", "reward_pattern", "train", f"{GRPO} reward_funcs=format reward_pattern=[",
     f"{GRPO} reward_funcs=format reward_pattern=a+"),
    ("no-word", "reward_word", "train", f"{GRPO} reward_funcs=ends_with", f"{GRPO} reward_funcs=ends_with "
     "reward_word=please"),
    ("groups-whole", "num_generations", "train", f"{GRPO} num_generations=3", f"{GRPO} num_generations=4"),
    ("groups-whole", "num_generations", "train", f"{GRPO} per_device_train_batch_size=4 steps_per_generation=1 "
     "gradient_accumulation_steps=1", f"{GRPO} per_device_train_batch_size=4 steps_per_generation=4 "
     "gradient_accumulation_steps=2"),
    ("rounds-whole", "steps_per_generation", "train", f"{GRPO} steps_per_generation=3 gradient_accumulation_steps=2",
     f"{GRPO} steps_per_generation=4 gradient_accumulation_steps=2"),
    ("rounds-auto", "per_device_train_batch_size", "train", f"{GRPO} per_device_train_batch_size=auto", GRPO),
    ("rounds-streaming", "streaming", "train", f"{GRPO} streaming=true max_steps=3", f"{GRPO} max_steps=3"),
    ("rounds-alike", "temperature", "train", f"{GRPO} temperature=0", f"{GRPO} temperature=0.7"),
    ("rounds-alike", "do_sample", "train", f"{GRPO} do_sample=false", GRPO),
    ("rollout-option", "stage", "train", f"{RUN} num_generations=4", RUN),
    ("fp16-on-cpu", "fp16", "train", f"{RUN} fp16=true use_cpu=true", f"{RUN} bf16=true use_cpu=true"),
    ("output-is-model", "output_dir", "train", f"model_name_or_path=m/ {DATA} output_dir=m", RUN),
]
LATER = {"not-offered", "no-effect", "virtual-rows", "hub-token"}
"""What is said of things that are not done yet, and of the machine, beside what the rules say of them."""


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that no hub knows."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "USE_MODELSCOPE_HUB"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))


def configured(*words: str) -> Config:
    config, findings = read_config(words)
    assert not findings, [finding.line() for finding in findings]
    return config


@pytest.mark.parametrize(("rule", "option", "verb", "broken", "mended"), CASES)
def test_a_rule_speaks_when_it_is_broken_and_only_then(rule, option, verb, broken, mended):
    """And nothing else is said of what is in order: no false alarm."""
    found = apply_rules(configured(*broken.split()), verb)
    assert (rule, option) in [(finding.id, finding.option) for finding in found]
    found = apply_rules(configured(*mended.split()), verb)
    assert [finding.line() for finding in found if finding.id not in LATER] == []


def test_every_rule_has_a_case():
    assert {(rule.id, rule.option) for rule in RULES} == {case[:2] for case in CASES}


@pytest.mark.parametrize(("rule", "option", "verb", "broken"), [case[:4] for case in CASES])
def test_a_rule_speaks_both_languages_with_its_values_filled_in(rule, option, verb, broken):
    for finding in apply_rules(configured(*broken.split()), verb):
        english, chinese = finding.line(), finding.line(chinese=True)
        assert english.isascii() and "{" not in english.replace("${HOME}", "").replace('{"min_lr_rate"', ""), english
        assert any("一" <= letter <= "鿿" for letter in chinese.split(": ", 1)[1]), chinese


@pytest.mark.parametrize(("rule", "option", "verb", "broken"), [case[:4] for case in CASES])
def test_the_cure_that_a_rule_offers_mends_it(rule, option, verb, broken):
    config = configured(*broken.split())
    for each in RULES:
        if each.cure and verb in each.verbs and each.when(config):
            assert not each.when(config.with_values("a cure", **each.cure(config))), each.id


def test_rules_tell_where_a_value_was_set(tmp_path: Path):
    path = tmp_path / "run.yaml"
    path.write_text("model_name_or_path: m\ndataset: d.json\noutput_dir: o\nfinetuning_type: full\n"
                    "learning_rate: 2e-4\n", encoding="utf-8")
    (finding,) = apply_rules(configured(str(path)), "train")
    assert finding.line() == ("warn   learning_rate (run.yaml:5): 0.0002 is a LoRA rate; full fine-tuning usually "
                              "wants a tenth of it. Try 1e-5 to 5e-5.")


def test_errors_come_first_and_unheard_options_are_told():
    """A known name that does nothing here is accepted and says so, unless it asks for what is done anyway. It is a
    warning only where the run is not what was asked for."""
    words = f"{RUN} split_special_tokens=true shift_attn=true save_safetensors=true bf16=true fp16=true".split()
    found = apply_rules(configured(*words), "train")
    assert [(finding.severity, finding.option) for finding in found] == [
        ("error", "fp16"), ("warn", "shift_attn"), ("info", "split_special_tokens")]
    assert "not done here: attention is always over the whole row" in found[1].line()
    assert "no effect: what people wrote always stays text" in found[2].line()
