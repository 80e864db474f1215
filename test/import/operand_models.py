"""Nodes whose attributes, operands or results are not those of a decoder's."""


from cases import case


def alter_attributes(group, node, **cases):
    for name, attributes in cases.items():

        def alter(d, attributes=attributes):
            d.set(node, **attributes)

        alter.__name__ = name
        case(group)(alter)


# Attributes.

alter_attributes(
    "attributes", "a",
    softcap={"softcap": -30.0},
    window={"local_window_size": 0},
    smooth={"smooth_softmax": 2},
    quantised={"k_quant_type": "PER_TENSOR"},
    bits={"kv_cache_bit_width": 8},
    qk_output={"qk_output": 1},
    not_causal={"causal": 0},
    unknown={"surprise": 1},
    wrong_type={"num_heads": 2.0},
    heads={"num_heads": 3, "kv_num_heads": 2},
    no_heads={"num_heads": 0},
    negative_heads={"kv_num_heads": -1},
    huge_heads={"num_heads": 2**62, "kv_num_heads": 2**62},
    nan_scale={"scale": float("nan")},
)
alter_attributes("attributes", "n0", axis={"axis": 1}, stash={"stash_type": 10}, epsilon={"epsilon": -1.0})


@case("attributes")
def missing(d):
    del d["a"].attribute[[a.name for a in d["a"].attribute].index("num_heads")]


@case("attributes")
def twice(d):
    d["a"].attribute.append(d["a"].attribute[0])


@case("attributes")
def reference(d):
    d["a"].attribute[0].ref_attr_name = "n"


# Operands and results.

for _index, _name in [(10, "attention_bias"), (11, "head_sink"), (12, "k_scale"), (13, "v_scale"),
                      (14, "q_norm_weight"), (15, "k_norm_weight"), (16, "query_seqlens")]:

    def _operand(d, index=_index):
        d["a"].input.extend([""] * (index + 1 - len(d["a"].input)))
        d["a"].input[index] = "norm0"

    _operand.__name__ = _name
    case("operands")(_operand)


@case("operands")
def skip_bias(d):
    d["n1"].input.append("x0")


@case("operands")
def qk_result(d):
    d["a"].output.append("qk")


@case("operands")
def mean_result(d):
    d["n1"].output[1] = "mean"


@case("operands")
def dynamic_product(d):
    d["g"].input[1] = "n1"


@case("operands")
def ids_in_product(d):
    d["g"].input[0] = "input_ids"


@case("operands")
def no_ids_in_gather(d):
    d["x0"].input[1] = "attention_mask"


@case("operands")
def no_past(d):
    d["a"].input[3] = ""


@case("operands")
def own_positions(d):
    d["a"].input[9] = "seqlens"


@case("operands")
def mask_in_add(d):
    d.node("Add", ["attention_mask", "n2"], ["masks"])


@case("operands")
def too_few(d):
    del d["g"].input[1]


@case("operands")
def too_many(d):
    d["sg"].input.append("g")


@case("operands")
def no_result(d):
    d.node("Identity", ["x0"], ["x"])
    del d["x"].output[:]
