# SPDX-License-Identifier: Apache-2.0
"""What the messages of an EasyRec configuration are made of: a table.

The fields of version 0.8.7 that a DropoutNet can meet, with the defaults that
count where a file is silent. `TYPE NAME`, `TYPE* NAME` for repeated fields,
`= DEFAULT`; fields of one `@group` exclude each other. Numbers of fields do not
matter: the text format has none.
"""

ROOT = 'EasyRecConfig'

ENUMS = {
    'FieldType': 'INT32 INT64 STRING FLOAT DOUBLE BOOL',
    'InputType': (
        'CSVInput CSVInputV2 CSVInputEx OdpsInput OdpsInputV2 OdpsInputV3 '
        'DataHubInput RTPInput RTPInputV2 OdpsRTPInput OdpsRTPInputV2 '
        'TFRecordInput BatchTFRecordInput DummyInput KafkaInput HiveInput '
        'HiveRTPInput HiveParquetInput ParquetInput ParquetInputV2 '
        'ParquetInputV3 CriteoInput'
    ),
    'FeatureType': (
        'IdFeature RawFeature TagFeature ComboFeature LookupFeature '
        'SequenceFeature ExprFeature PassThroughFeature'
    ),
    'WideOrDeep': 'DEEP WIDE WIDE_AND_DEEP',
    'LossType': (
        'CLASSIFICATION L2_LOSS SIGMOID_L2_LOSS CROSS_ENTROPY_LOSS '
        'SOFTMAX_CROSS_ENTROPY CIRCLE_LOSS MULTI_SIMILARITY_LOSS '
        'SOFTMAX_CROSS_ENTROPY_WITH_NEGATIVE_MINING PAIR_WISE_LOSS '
        'F1_REWEIGHTED_LOSS BINARY_FOCAL_LOSS PAIRWISE_FOCAL_LOSS '
        'PAIRWISE_LOGISTIC_LOSS PAIRWISE_HINGE_LOSS JRC_LOSS '
        'ORDER_CALIBRATE_LOSS BINARY_CROSS_ENTROPY_LOSS KL_DIVERGENCE_LOSS '
        'LISTWISE_RANK_LOSS LISTWISE_DISTILL_LOSS ZILN_LOSS'
    ),
    'LossWeightStrategy': 'Fixed Uncertainty Random',
    'DistributionStrategy': (
        'NoStrategy PSStrategy MirroredStrategy CollectiveAllReduceStrategy '
        'ExascaleStrategy MultiWorkerMirroredStrategy HorovodStrategy '
        'SokStrategy EmbeddingParallelStrategy'
    ),
}

_SAMPLER = """
    uint32 num_sample; string* attr_fields; string item_id_field;
    string attr_delimiter = :; uint32 num_eval_sample = 0;
    string field_delimiter
"""
_EDGES = """
    string user_input_path; string item_input_path; string user_id_field
"""
_ADAM = 'LearningRate learning_rate; float beta1 = 0.9; float beta2 = 0.999'

MESSAGES = {
    ROOT: """
        string train_input_path @train; string parquet_train_input @train;
        string eval_input_path @eval; string parquet_eval_input @eval;
        string model_dir; TrainConfig train_config; EvalConfig eval_config;
        DatasetConfig data_config; FeatureConfig* feature_configs;
        FeatureConfigV2 feature_config; EasyRecModel model_config;
        ExportConfig export_config; string fg_json_path
    """,
    'DatasetConfig': """
        uint32 batch_size = 32; bool auto_expand_input_fields = false;
        string* label_fields; string* label_sep; uint32* label_dim;
        LabelFunction* extra_label_func; bool shuffle = true;
        int32 shuffle_buffer_size = 32; uint32 num_epochs = 0;
        uint32 prefetch_size = 32; bool shard = false; bool file_shard = false;
        InputType input_type; string separator = ,;
        uint32 num_parallel_calls = 8; string selected_cols;
        string selected_col_types; Field* input_fields; string rtp_separator;
        bool ignore_error = false; bool pai_worker_queue = false;
        int32 pai_worker_slice_num = 100; bool chief_redundant = false;
        string sample_weight; string data_compression_type;
        uint32 n_data_batch_tfrecord; bool with_header = false;
        string* feature_fields; uint32 eval_batch_size = 4096;
        bool drop_remainder = false;
        NegativeSampler negative_sampler @sampler;
        NegativeSamplerV2 negative_sampler_v2 @sampler;
        HardNegativeSampler hard_negative_sampler @sampler;
        HardNegativeSamplerV2 hard_negative_sampler_v2 @sampler;
        NegativeSampler negative_sampler_in_memory @sampler
    """,
    'Field': """
        string input_name; FieldType input_type = STRING; string default_val;
        uint32 input_dim = 1; uint32 input_shape = 1; string user_define_fn;
        string user_define_fn_path; FieldType user_define_fn_res_type;
        string ignore_val
    """,
    'LabelFunction': 'string label_name; string label_func',
    'NegativeSampler': f'string input_path; {_SAMPLER}',
    'NegativeSamplerV2': f'{_EDGES}; string pos_edge_input_path; {_SAMPLER}',
    'HardNegativeSampler': f"""
        {_EDGES}; string hard_neg_edge_input_path; uint32 num_hard_sample;
        {_SAMPLER}
    """,
    'HardNegativeSamplerV2': f"""
        {_EDGES}; string pos_edge_input_path; string hard_neg_edge_input_path;
        uint32 num_hard_sample; {_SAMPLER}
    """,
    'FeatureConfigV2': """
        FeatureConfig* features; bool embedding_on_cpu = false
    """,
    'FeatureConfig': """
        string feature_name; string* input_names;
        FeatureType feature_type = IdFeature; string embedding_name;
        uint32 embedding_dim = 0; uint64 hash_bucket_size = 0;
        uint64 num_buckets = 0; double* boundaries; string separator = |;
        string kv_separator; string seq_multi_sep; uint32 max_seq_len;
        string vocab_file; string* vocab_list; string* shared_names;
        int32 lookup_max_sel_elem_num = 10; int32 max_partitions = 1;
        string combiner = sum; Initializer initializer; int32 precision = -1;
        double min_val = 0; double max_val = 0; string normalizer_fn;
        uint32 raw_input_dim = 1; SequenceCombiner sequence_combiner;
        FeatureType sub_feature_type = IdFeature; uint32 sequence_length = 1;
        string expression; EVParams ev_params; string combo_join_sep;
        string* combo_input_seps
    """,
    'Initializer': """
        NormalInitializer truncated_normal_initializer @kind;
        NormalInitializer random_normal_initializer @kind;
        Empty glorot_normal_initializer @kind;
        ConstantInitializer constant_initializer @kind
    """,
    'NormalInitializer': 'float mean = 0; float stddev = 1',
    'ConstantInitializer': 'float* consts',
    'SequenceCombiner': """
        Empty attention @kind; Empty multi_head_attention @kind;
        TextCNN text_cnn @kind
    """,
    'TextCNN': """
        uint32* filter_sizes; uint32* num_filters; uint32 pad_sequence_length;
        string activation; MLP mlp
    """,
    'MLP': """
        uint32* hidden_units; float* dropout_ratio; string activation;
        bool use_bn = true; bool use_final_bn = true; string final_activation;
        bool use_bias = false; string initializer
    """,
    'EVParams': """
        uint64 filter_freq = 0; uint64 steps_to_live = 0;
        bool use_cache = false; uint64 init_capacity; uint64 max_capacity
    """,
    'EasyRecModel': """
        string model_class; string model_name;
        FeatureGroupConfig* feature_groups; DropoutNet dropoutnet;
        SeqAttGroupConfig* seq_att_groups; float embedding_regularization = 0;
        LossType loss_type = CLASSIFICATION; uint32 num_class = 1;
        EVParams ev_params; KD* kd; string* restore_filters;
        VariationalDropoutLayer variational_dropout; Loss* losses;
        LossWeightStrategy loss_weight_strategy = Fixed; string label_name
    """,
    'FeatureGroupConfig': """
        string group_name; string* feature_names; WideOrDeep wide_deep = DEEP;
        SeqAttGroupConfig* sequence_features; bool negative_sampler = false
    """,
    'SeqAttGroupConfig': """
        string group_name; SeqAttMap* seq_att_map; bool tf_summary = false;
        DNN seq_dnn; bool allow_key_search = false;
        bool need_key_feature = true; bool allow_key_transform = false;
        bool transform_dnn = false
    """,
    'SeqAttMap': 'string* key; string* hist_seq; string* aux_hist_seq',
    'VariationalDropoutLayer': """
        float regularization_lambda = 0.01;
        bool embedding_wise_variational_dropout = false
    """,
    'DropoutNet': """
        DNN user_content; DNN user_preference; DNN item_content;
        DNN item_preference; DNN user_tower; DNN item_tower;
        float l2_regularization = 0; float user_dropout_rate = 0;
        float item_dropout_rate = 0.5; SoftmaxLoss softmax_loss
    """,
    'DNN': """
        uint32* hidden_units; float* dropout_ratio;
        string activation = tf.nn.relu; bool use_bn = true
    """,
    'SoftmaxLoss': """
        uint32 num_negative_samples; float margin = 0; float gamma = 1;
        float coefficient_of_support_vector = 1
    """,
    'Loss': """
        LossType loss_type; float weight = 1; string loss_name;
        bool learn_loss_weight = false;
        F1ReweighedLoss f1_reweighted_loss @param;
        SoftmaxLoss softmax_loss @param; CircleLoss circle_loss @param;
        MultiSimilarityLoss multi_simi_loss @param;
        BinaryFocalLoss binary_focal_loss @param;
        PairwiseLoss pairwise_loss @param;
        PairwiseFocalLoss pairwise_focal_loss @param;
        PairwiseLogisticLoss pairwise_logistic_loss @param;
        PairwiseHingeLoss pairwise_hinge_loss @param;
        JRCLoss jrc_loss @param; ListwiseLoss listwise_rank_loss @param;
        ListwiseLoss listwise_distill_loss @param; ZILNLoss ziln_loss @param
    """,
    'KD': """
        string loss_name; string pred_name; bool pred_is_logits = true;
        string soft_label_name; bool label_is_logits = true; LossType loss_type;
        float loss_weight = 1; float temperature = 1
    """,
    'F1ReweighedLoss': 'float f1_beta_square = 1; float label_smoothing = 0',
    'CircleLoss': 'float margin = 0.25; float gamma = 32',
    'MultiSimilarityLoss': """
        float alpha = 2; float beta = 50; float lamb = 1; float eps = 0.1
    """,
    'BinaryFocalLoss': """
        float gamma = 2; float alpha; float ohem_ratio = 1;
        float label_smoothing = 0
    """,
    'PairwiseLoss': """
        float margin = 0; string session_name; float temperature = 1
    """,
    'PairwiseFocalLoss': """
        float gamma = 2; float alpha; float hinge_margin = 1;
        string session_name; float ohem_ratio = 1; float temperature = 1
    """,
    'PairwiseLogisticLoss': """
        float temperature = 1; string session_name; float hinge_margin;
        float ohem_ratio = 1; bool use_label_margin = false
    """,
    'PairwiseHingeLoss': """
        float temperature = 1; string session_name; float margin = 1;
        float ohem_ratio = 1; bool label_is_logits = true;
        bool use_label_margin = true; bool use_exponent = false
    """,
    'JRCLoss': """
        string session_name; float alpha = 0.5; bool same_label_loss = true;
        string loss_weight_strategy = fixed
    """,
    'ListwiseLoss': """
        float temperature = 1; string session_name; string transform_fn;
        bool label_is_logits = false; bool scale_logits = false;
        float label_clip_max_value = 512
    """,
    'ZILNLoss': """
        float mu_regularization; float sigma_regularization;
        float max_log_clip_value; float max_sigma; bool return_log_pred_value;
        float classification_weight = 1; float regression_weight = 1
    """,
    'TrainConfig': """
        Optimizer* optimizer_config; float gradient_clipping_by_norm = 0;
        uint32 num_steps = 0; string fine_tune_checkpoint;
        string fine_tune_ckpt_var_map; bool sync_replicas = true;
        string sparse_accumulator_type; float startup_delay_steps = 15;
        uint32 save_checkpoints_steps = 1000; uint32 save_checkpoints_secs;
        uint32 keep_checkpoint_max = 10; uint32 save_summary_steps = 1000;
        uint32 log_step_count_steps = 10; bool is_profiling = false;
        bool force_restore_shape_compatible = false;
        DistributionStrategy train_distribute = NoStrategy;
        int32 num_gpus_per_worker = 1; bool summary_model_vars = false;
        string protocol; int32 inter_op_parallelism_threads = 0;
        int32 intra_op_parallelism_threads = 0; bool tensor_fuse = false;
        bool write_graph = true; string* freeze_gradient;
        bool enable_oss_stop_signal = false; string dead_line
    """,
    'Optimizer': """
        RMSPropOptimizer rms_prop_optimizer @kind;
        MomentumOptimizer momentum_optimizer @kind;
        AdamOptimizer adam_optimizer @kind;
        MomentumOptimizer momentumw_optimizer @kind;
        AdamOptimizer adamw_optimizer @kind;
        AdamOptimizer adam_async_optimizer @kind;
        AdagradOptimizer adagrad_optimizer @kind;
        FtrlOptimizer ftrl_optimizer @kind;
        AdamOptimizer adam_asyncw_optimizer @kind;
        AdamOptimizer lazy_adam_optimizer @kind;
        bool use_moving_average = false; float moving_average_decay = 0.9999;
        float embedding_learning_rate_multiplier
    """,
    'RMSPropOptimizer': """
        LearningRate learning_rate; float momentum_optimizer_value = 0.9;
        float decay = 0.9; float epsilon = 1
    """,
    # weight_decay is of the two whose names end in w.
    'MomentumOptimizer': """
        LearningRate learning_rate; float weight_decay = 1e-6;
        float momentum_optimizer_value = 0.9
    """,
    'AdamOptimizer': f'{_ADAM}; float weight_decay = 1e-6',
    'AdagradOptimizer': """
        LearningRate learning_rate; float initial_accumulator_value = 0.1
    """,
    'FtrlOptimizer': """
        LearningRate learning_rate; float learning_rate_power = -0.5;
        float initial_accumulator_value = 0.1; float l1_reg = 0;
        float l2_reg = 0; float l2_shrinkage_reg = 0
    """,
    'LearningRate': """
        ConstantRate constant_learning_rate @kind;
        ExponentialRate exponential_decay_learning_rate @kind;
        ManualRate manual_step_learning_rate @kind;
        CosineRate cosine_decay_learning_rate @kind;
        PolyRate poly_decay_learning_rate @kind;
        TransformerRate transformer_learning_rate @kind
    """,
    'ConstantRate': 'float learning_rate = 0.002',
    'ExponentialRate': """
        float initial_learning_rate = 0.002; uint32 decay_steps = 4000000;
        float decay_factor = 0.95; bool staircase = true;
        float burnin_learning_rate = 0; uint32 burnin_steps = 0;
        float min_learning_rate = 0
    """,
    'ManualRate': """
        float initial_learning_rate = 0.002; ManualStep* schedule;
        bool warmup = false
    """,
    'ManualStep': 'uint32 step; float learning_rate = 0.002',
    'CosineRate': """
        float learning_rate_base = 0.002; uint32 total_steps = 4000000;
        float warmup_learning_rate = 0.0002; uint32 warmup_steps = 10000;
        uint32 hold_base_rate_steps = 0
    """,
    'PolyRate': """
        float learning_rate_base; int64 total_steps; float power;
        float end_learning_rate = 0
    """,
    'TransformerRate': """
        float learning_rate_base; int32 hidden_size; int32 warmup_steps;
        float step_scaling_rate = 1
    """,
    'EvalConfig': """
        uint32 num_examples = 0; uint32 eval_interval_secs = 300;
        uint32 max_evals = 0; bool save_graph = false; EvalMetrics* metrics_set;
        bool eval_online = false
    """,
    'EvalMetrics': """
        AUC auc @metric; TopK recall_at_topk @metric;
        Empty mean_absolute_error @metric; Empty mean_squared_error @metric;
        Empty accuracy @metric; Empty max_f1 @metric;
        Empty root_mean_squared_error @metric; GAUC gauc @metric;
        SessionAUC session_auc @metric; Empty recall @metric;
        Empty precision @metric; TopK precision_at_topk @metric
    """,
    'AUC': 'uint32 num_thresholds = 200',
    'TopK': 'uint32 topk = 5',
    'GAUC': 'string uid_field; string reduction = mean',
    'SessionAUC': 'string session_id_field; string reduction = mean',
    'ExportConfig': """
        int32 batch_size = -1; string exporter_type = final;
        string best_exporter_metric = auc; bool metric_bigger = true;
        bool enable_early_stop = false; string early_stop_func;
        string early_stop_params; int32 max_check_steps = 10000;
        bool multi_placeholder = true; int32 exports_to_keep = 1;
        MultiValueFields multi_value_fields; bool auto_multi_value = false;
        bool placeholder_named_by_input = false; bool filter_inputs = true;
        bool export_features = false; bool export_rtp_outputs = false;
        string* asset_files
    """,
    'MultiValueFields': 'string* input_name',
    'Empty': '',
}
