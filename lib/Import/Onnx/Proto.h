//===- Proto.h - The generated ONNX schema, its warnings kept out ----------===//
#ifndef HELIX_LIB_IMPORT_ONNX_PROTO_H
#define HELIX_LIB_IMPORT_ONNX_PROTO_H

#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Weverything"
#include "onnx-ml.pb.h"
#pragma clang diagnostic pop

#endif // HELIX_LIB_IMPORT_ONNX_PROTO_H
