"""The program that walks trees, in LLVM's language, and its compilation for the processor at hand.

One question is one customer and up to 64 candidates. What is known of the customer is the same for all of them, so
each tree is descended once for a *set* of candidates, a bit each: a split on the customer sends the whole set one way,
a split on the candidates parts it, and what comes to a leaf gets its value. In C it would read

    for each row:
        columns[k][j] = candidates[row][j][k]                     one column after the other, 64 places each
        for each tree:
            node = its root; set = all candidates
            forever:
                leaf:       add payload to the sum of each in the set; take up what was put aside, or the next tree
                customer:   node = customer[row][column] <= payload ? next node : right
                candidate:  part the set by columns[column] <= payload; go on with who goes left, put aside the others
                fixed:      part the set by the bits of payload, in the same way

A sum is made in the order of the trees and in float64, as LightGBM makes it: it is the same to the last bit. The left
child of a node is the node after it. The trees are data: the program is compiled once per process, in some hundredths
of a second, whatever the models are.

Compiled code holds no lock of Python's, keeps no state, and may run in as many threads as one likes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from serving.booster_text import NotCompiled

PLACES = 64
"""Candidates that are walked together."""
NODE = np.dtype([("kind", "<i2"), ("column", "<i2"), ("right", "<i4"), ("payload", "<i8")])
"""payload: a leaf's float64, a fixed set's 64 bits, or a threshold: float32, in its lower half."""
LEAF, CUSTOMER, CUSTOMER_NAN_LEFT, CANDIDATE, CANDIDATE_NAN_LEFT, FIXED = range(6)

_PROGRAM = f"""
%Node = type {{ i16, i16, i32, i64 }}
%Aside = type {{ i64, i64 }}

declare i64 @llvm.cttz.i64(i64, i1)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

define void @walk(i64 %rows, ptr noalias %customer, i64 %customer_step, ptr noalias %candidates, i64 %candidates_step,
                  i64 %depth, i64 %count, ptr noalias %nodes, ptr noalias %roots, i64 %trees, i64 %deepest,
                  ptr noalias %sums, i64 %sums_step) {{
start:
  %columns = alloca <{PLACES} x float>, i64 %depth, align 256
  %asides = alloca %Aside, i64 %deepest, align 16
  %column_bytes = mul i64 %depth, {4 * PLACES}
  call void @llvm.memset.p0.i64(ptr %columns, i8 0, i64 %column_bytes, i1 false)
  %acc = alloca <8 x double>, i64 8, align 64
  %count_up = add i64 %count, 7
  %eights = lshr i64 %count_up, 3
  %unused = sub i64 {PLACES}, %count
  %all = lshr i64 -1, %unused
  br label %next_row

next_row:
  %row = phi i64 [ 0, %start ], [ %row_after, %row_done ]
  %more_rows = icmp slt i64 %row, %rows
  br i1 %more_rows, label %row_begins, label %end
row_begins:
  %x_at = mul i64 %row, %customer_step
  %x = getelementptr float, ptr %customer, i64 %x_at
  %z_at = mul i64 %row, %candidates_step
  %z = getelementptr float, ptr %candidates, i64 %z_at
  %y_at = mul i64 %row, %sums_step
  %y = getelementptr double, ptr %sums, i64 %y_at
  br label %next_candidate

next_candidate:
  %j = phi i64 [ 0, %row_begins ], [ %j_after, %candidate_done ]
  %more_candidates = icmp slt i64 %j, %count
  br i1 %more_candidates, label %candidate_begins, label %next_tree
candidate_begins:
  %sum_at = getelementptr double, ptr %acc, i64 %j
  store double 0.0, ptr %sum_at
  %z_row_at = mul i64 %j, %depth
  %z_row = getelementptr float, ptr %z, i64 %z_row_at
  br label %next_column
next_column:
  %k = phi i64 [ 0, %candidate_begins ], [ %k_after, %column_begins ]
  %more_columns = icmp slt i64 %k, %depth
  br i1 %more_columns, label %column_begins, label %candidate_done
column_begins:
  %cell_at = getelementptr float, ptr %z_row, i64 %k
  %cell = load float, ptr %cell_at
  %column_at = getelementptr <{PLACES} x float>, ptr %columns, i64 %k
  %place_at = getelementptr float, ptr %column_at, i64 %j
  store float %cell, ptr %place_at
  %k_after = add i64 %k, 1
  br label %next_column
candidate_done:
  %j_after = add i64 %j, 1
  br label %next_candidate

next_tree:
  %tree = phi i64 [ 0, %next_candidate ], [ %tree_after, %tree_done ]
  %more_trees = icmp slt i64 %tree, %trees
  br i1 %more_trees, label %tree_begins, label %row_done
tree_begins:
  %root_at = getelementptr i32, ptr %roots, i64 %tree
  %root_32 = load i32, ptr %root_at
  %root = sext i32 %root_32 to i64
  br label %visit

visit:
  %node = phi i64 [ %root, %tree_begins ], [ %customer_child, %split_customer ], [ %next, %to_left ],
                  [ %right, %to_right ], [ %taken_node, %take_back ]
  %set = phi i64 [ %all, %tree_begins ], [ %set, %split_customer ], [ %left_set, %to_left ],
                 [ %right_set, %to_right ], [ %taken_set, %take_back ]
  %aside = phi i64 [ 0, %tree_begins ], [ %aside, %split_customer ], [ %aside_after, %to_left ],
                   [ %aside, %to_right ], [ %aside_less, %take_back ]
  %at = getelementptr %Node, ptr %nodes, i64 %node
  %kind = load i16, ptr %at
  %column_p = getelementptr %Node, ptr %at, i64 0, i32 1
  %column_16 = load i16, ptr %column_p
  %column = sext i16 %column_16 to i64
  %right_p = getelementptr %Node, ptr %at, i64 0, i32 2
  %right_32 = load i32, ptr %right_p
  %right = sext i32 %right_32 to i64
  %payload_p = getelementptr %Node, ptr %at, i64 0, i32 3
  %next = add i64 %node, 1
  switch i16 %kind, label %leaf [ i16 {CUSTOMER}, label %of_customer  i16 {CUSTOMER_NAN_LEFT}, label %of_customer
                                  i16 {CANDIDATE}, label %of_candidate  i16 {CANDIDATE_NAN_LEFT}, label %of_candidate
                                  i16 {FIXED}, label %fixed ]

of_customer:
  %x_cell_at = getelementptr float, ptr %x, i64 %column
  %x_cell = load float, ptr %x_cell_at
  %x_threshold = load float, ptr %payload_p
  %x_below = fcmp ole float %x_cell, %x_threshold
  %x_unknown = fcmp uno float %x_cell, %x_cell
  %x_nan_left = icmp eq i16 %kind, {CUSTOMER_NAN_LEFT}
  %x_unknown_left = and i1 %x_unknown, %x_nan_left
  %goes_left = or i1 %x_below, %x_unknown_left
  br label %split_customer
split_customer:
  %customer_child = select i1 %goes_left, i64 %next, i64 %right
  br label %visit

of_candidate:
  %z_column_at = getelementptr <{PLACES} x float>, ptr %columns, i64 %column
  %z_cells = load <{PLACES} x float>, ptr %z_column_at, align 256
  %z_threshold = load float, ptr %payload_p
  %z_one = insertelement <{PLACES} x float> poison, float %z_threshold, i64 0
  %z_thresholds = shufflevector <{PLACES} x float> %z_one, <{PLACES} x float> poison, <{PLACES} x i32> zeroinitializer
  %z_below = fcmp ole <{PLACES} x float> %z_cells, %z_thresholds
  %z_below_set = bitcast <{PLACES} x i1> %z_below to i64
  %z_nan_left = icmp eq i16 %kind, {CANDIDATE_NAN_LEFT}
  br i1 %z_nan_left, label %of_candidate_nan, label %part
of_candidate_nan:
  %z_unknown = fcmp uno <{PLACES} x float> %z_cells, zeroinitializer
  %z_unknown_set = bitcast <{PLACES} x i1> %z_unknown to i64
  %z_left_set = or i64 %z_below_set, %z_unknown_set
  br label %part
fixed:
  %fixed_set = load i64, ptr %payload_p
  br label %part

part:
  %lefts = phi i64 [ %z_below_set, %of_candidate ], [ %z_left_set, %of_candidate_nan ], [ %fixed_set, %fixed ]
  %left_set = and i64 %set, %lefts
  %not_lefts = xor i64 %lefts, -1
  %right_set = and i64 %set, %not_lefts
  %nobody_left = icmp eq i64 %left_set, 0
  br i1 %nobody_left, label %to_right, label %some_left
to_right:
  br label %visit
some_left:
  %aside_at = getelementptr %Aside, ptr %asides, i64 %aside
  store i64 %right_set, ptr %aside_at
  %aside_node_at = getelementptr %Aside, ptr %aside_at, i64 0, i32 1
  store i64 %right, ptr %aside_node_at
  %somebody_right = icmp ne i64 %right_set, 0
  %one_more = zext i1 %somebody_right to i64
  %aside_after = add i64 %aside, %one_more
  br label %to_left
to_left:
  br label %visit

leaf:
  %value = load double, ptr %payload_p
  %value_one = insertelement <8 x double> poison, double %value, i64 0
  %values = shufflevector <8 x double> %value_one, <8 x double> poison, <8 x i32> zeroinitializer
  br label %add
add:
  %left_over = phi i64 [ %set, %leaf ], [ %left_over_after, %add ]
  %eight = phi i64 [ 0, %leaf ], [ %eight_after, %add ]
  %bits = trunc i64 %left_over to i8
  %chosen = bitcast i8 %bits to <8 x i1>
  %to_at = getelementptr <8 x double>, ptr %acc, i64 %eight
  %before = load <8 x double>, ptr %to_at, align 64
  %sum = fadd <8 x double> %before, %values
  %kept = select <8 x i1> %chosen, <8 x double> %sum, <8 x double> %before
  store <8 x double> %kept, ptr %to_at, align 64
  %left_over_after = lshr i64 %left_over, 8
  %eight_after = add i64 %eight, 1
  %all_added = icmp eq i64 %eight_after, %eights
  br i1 %all_added, label %leaf_done, label %add
leaf_done:
  %nothing_aside = icmp eq i64 %aside, 0
  br i1 %nothing_aside, label %tree_done, label %take_back
take_back:
  %aside_less = sub i64 %aside, 1
  %taken_at = getelementptr %Aside, ptr %asides, i64 %aside_less
  %taken_set = load i64, ptr %taken_at
  %taken_node_at = getelementptr %Aside, ptr %taken_at, i64 0, i32 1
  %taken_node = load i64, ptr %taken_node_at
  br label %visit

tree_done:
  %tree_after = add i64 %tree, 1
  br label %next_tree
row_done:
  %row_bytes = mul i64 %count, 8
  call void @llvm.memcpy.p0.p0.i64(ptr %y, ptr %acc, i64 %row_bytes, i1 false)
  %row_after = add i64 %row, 1
  br label %next_row
end:
  ret void
}}
"""


Walk: TypeAlias = Callable[..., None]


def address(block: npt.NDArray[Any]) -> int:
    """Where the block's cells lie."""
    held: Any = block
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(held))  # a fraction of the time that it takes to ask numpy
    except (TypeError, ValueError):  # it is read-only, or empty
        return int(block.ctypes.data)


@cache
def kernel() -> Walk:
    """The program as a function of C, with the arguments of `walk`; NotCompiled where it cannot be had here."""
    try:
        from llvmlite import binding

        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        module = binding.parse_assembly(_PROGRAM)
        module.verify()
        machine = binding.Target.from_default_triple().create_target_machine(
            cpu=binding.get_host_cpu_name(), features=binding.get_host_cpu_features().flatten(), opt=3, jit=True
        )
        engine = binding.create_mcjit_compiler(module, machine)
        engine.finalize_object()
        place = engine.get_function_address("walk")
    except (ImportError, OSError, RuntimeError) as error:
        raise NotCompiled(f"llvmlite cannot compile on this machine: {error}") from error
    whole, pointer = ctypes.c_int64, ctypes.c_void_p
    kinds = (whole, pointer, whole, pointer, whole, whole, whole, pointer, pointer, whole, whole, pointer, whole)
    function: Any = ctypes.CFUNCTYPE(None, *kinds)(place)
    function.engine = engine  # the code lives as long as its engine
    return cast(Walk, function)
